"""What v2 §3 says of shortcuts that are not the identity: the product of their factors."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, draw_lines, looks, number

TITLE = "What passes through shortcuts alone"

GONE, BLOWN_UP = 1e-3, 1e3


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """The product of the factors, measured and, dotted, predicted."""
    names = ", ".join(by(rows, "net"))
    alternative = f"Product of shortcut factors against units passed: {names}"
    return [[Panel("Product of shortcut factors", alternative, lambda axes: _draw(axes, rows))]]


def find(rows: Sequence[Row]) -> list[str]:
    return [_sentence(net, own) for net, own in by(rows, "net").items()]


def _sentence(net: str, own: Sequence[Row]) -> str:
    last = own[-1]
    measured, predicted = last["measured"], last["predicted"]
    if measured <= GONE:
        meaning = "the signal vanishes on the shortcuts, and must come through the branches"
    elif measured >= BLOWN_UP:
        meaning = "it explodes on the shortcuts"
    else:
        meaning = "the shortcuts carry it"
    without = f", not counting {last['not_counted']}," if last["not_counted"] else ""
    return (
        f"{net}: past {last['passed']} shortcuts{without} a gradient's norm is ×{number(measured)} "
        f"(predicted ×{number(predicted)}): {meaning}."
    )


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = [row for row in rows if 0 < row["measured"] < math.inf]
    if not drawn:
        axes.text(0.5, 0.5, "zero everywhere", ha="center", transform=axes.transAxes)
        return
    draw_lines(
        axes, drawn, "passed", "measured", xlabel="shortcuts passed, from the last unit back",
        ylabel="gradient norm, relative", log=True,
    )  # fmt: skip
    look = looks(rows)
    for net, own in by(rows, "net").items():
        shown = [row for row in own if 0 < row["predicted"] < math.inf]
        axes.plot(column(shown, "passed"), column(shown, "predicted"), color=look[net].colour,
                  linewidth=0.9, linestyle=":")  # fmt: skip
