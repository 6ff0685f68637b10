"""Singular values of the input–output Jacobian against depth (Saxe et al. 2014)."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import (
    Row,
    by,
    column,
    draw_lines,
    looks,
    number,
    percent,
    use_log_scale,
)

TITLE = "Singular values of the Jacobian"

ISOMETRY = 2.0  # times: within this of each other, singular values count as equal
_NOTHING = 1e-6  # of the largest: zero, but for rounding


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """The size of a random direction and of the largest against depth; the last spectrum."""
    names = ", ".join(by(rows, "net"))
    first = [row for row in rows if row["place"] == 1]
    last = [row for own in by(rows, "net").values() for row in _deepest(own)]
    return [
        [
            Panel("Against depth", f"Largest (solid) and mean singular value: {names}",
                  lambda axes: _depths(axes, first)),
            Panel("After the last unit", f"All singular values found, in falling order: {names}",
                  lambda axes: _spectrum(axes, last)),
        ]
    ]  # fmt: skip


def find(rows: Sequence[Row]) -> list[str]:
    return [_sentence(net, own) for net, own in by(rows, "net").items()]


def _sentence(net: str, own: Sequence[Row]) -> str:
    first, last = own[0], _deepest(own)
    layers = last[0]["layer"] - first["layer"]
    where = f"{net} (step {own[0]['step']:,})"
    if not last[0]["rms"] > 0 or not first["rms"] > 0:
        return f"{where}: nothing of the input arrives; all singular values are 0."
    a_layer = (last[0]["rms"] / first["rms"]) ** (1 / layers) if layers else 1.0
    text = (
        f"{where}: the root mean square of the singular values goes from {number(first['rms'])} "
        f"after {first['layer']} layers to {number(last[0]['rms'])} after {last[0]['layer']}, "
        f"×{a_layer:.3g} a layer"
    )
    if not last[0]["exact"]:
        return f"{text}; the largest is {number(last[0]['value'])}."
    values = [row["value"] for row in last if row["value"] > _NOTHING * last[0]["value"]]
    spread = values[0] / values[-1]
    equal = "an isometry on" if spread <= ISOMETRY else "no isometry on"
    return (
        f"{text}; of {len(last)} values {percent(len(values) / len(last))} are not zero, the "
        f"largest {number(spread)} times the smallest of these: {equal} what it keeps."
    )


def _deepest(own: Sequence[Row]) -> list[Row]:
    layer = max(column(own, "layer"))
    return [row for row in own if row["layer"] == layer]


def _depths(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = [row for row in rows if row["value"] > 0 and row["rms"] > 0]
    if not drawn:
        axes.text(0.5, 0.5, "zero everywhere", ha="center", transform=axes.transAxes)
        return
    draw_lines(axes, drawn, "layer", "value", xlabel="layer", ylabel="singular value", log=True)
    look = looks(rows)
    for net, own in by(drawn, "net").items():
        axes.plot(column(own, "layer"), column(own, "rms"), color=look[net].colour, linewidth=0.8,
                  linestyle=":")  # fmt: skip


def _spectrum(axes: Axes, rows: Sequence[Row]) -> None:
    largest = max(column(rows, "value"), default=0.0)
    if not largest > 0:
        axes.text(0.5, 0.5, "zero everywhere", ha="center", transform=axes.transAxes)
        return
    use_log_scale(axes)
    drawn = [
        row for own in by(rows, "net").values() for row in own
        if row["value"] > max(_NOTHING * own[0]["value"], 0)
    ]  # fmt: skip
    draw_lines(axes, drawn, "place", "value", xlabel="place", ylabel="singular value", log=True)
