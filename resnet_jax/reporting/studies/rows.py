"""Rows of a study's data: sorted into nets, drawn as one line a net."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from resnet_jax.reporting import style
from resnet_jax.reporting.curves import Look
from resnet_jax.reporting.labels import LONGEST, label_line_ends, shorten

Row = dict[str, Any]

_STYLES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.4, 1.2, 1.4)))


def by(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """Rows by the value of a column, or by the values of several, in the order of appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in columns)
        groups.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return groups


def column(rows: Iterable[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """A colour for each net: its family's, or, where more than two share one, the series'."""
    nets = {row["net"]: row["family"] for row in rows}
    families = list(nets.values())
    if max(families.count(family) for family in families) <= 2:
        colour = lambda _, family: style.LIGHT[f"family-{family}"]
    else:
        shades = len(style.SERIES) - 1
        colour = lambda index, _: style.SERIES[
            round(index * shades / (len(nets) - 1)) if len(nets) <= shades + 1 else index % shades
        ]
    return {
        net: Look(colour(index, family), "o", _at_line_end(net, nets))
        for index, (net, family) in enumerate(nets.items())
    }


def _at_line_end(net: str, nets: Iterable[str]) -> str:
    """A name that fits: settings without their fields, and without the model that all share."""
    if len(net) <= LONGEST:
        return net
    parts = net.split(", ")
    if len({other.split(", ")[0] for other in nets}) == 1:
        parts = parts[1:]
    return shorten(", ".join(part.rpartition("=")[2] for part in parts))


def dashes(rows: Sequence[Row], net: str) -> Any:
    """A line's pattern: solid for a family's deepest net, broken for the others."""
    family = next(row["family"] for row in rows if row["net"] == net)
    nets = {row["net"]: row["depth"] for row in rows if row["family"] == family}
    order = sorted(nets, key=lambda name: -(nets[name] or 0))
    return _STYLES[order.index(net) % len(_STYLES)]


def draw_lines(
    axes: Axes,
    rows: Sequence[Row],
    x: str,
    y: str,
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    scale: float = 1.0,
    marker: str | None = None,
) -> None:
    """One line a net, named at its end."""
    if log:
        use_log_scale(axes)
    look, ends = looks(rows), []
    for net, own in by(rows, "net").items():
        values = [scale * value for value in column(own, y)]
        axes.plot(
            column(own, x), values, color=look[net].colour, linestyle=dashes(rows, net),
            linewidth=1.6, marker=marker, markersize=4,
        )  # fmt: skip
        ends.append((values[-1], look[net].label, look[net].colour))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    finish(axes, column(rows, x), ends)


def finish(axes: Axes, xs: Sequence[float], ends: Sequence[tuple[float, str, str]]) -> None:
    """Puts the lines' names at their ends, after everything is drawn."""
    low, high = min(xs), max(xs)
    axes.set_xlim(low, high if high > low else low + 1)
    label_line_ends(axes, ends)


def use_log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: number(value))


def number(value: float) -> str:
    """Three figures, for sentences and axes: "0.0312", "1.2e-08", "4.5e+06"."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2g}"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def listed(parts: Iterable[str]) -> str:
    """E.g. "a, b and c", or "a; b, c and d" where a part has commas of its own."""
    parts = list(parts)
    comma = "; " if any("," in part for part in parts) else ", "
    return comma.join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def pairs_by_family(nets: dict[str, Row]) -> list[tuple[str, str]]:
    """(shallower, deeper) nets next to each other in depth, family by family."""
    pairs = []
    for members in by(nets.values(), "family").values():
        members = sorted(members, key=lambda row: row["depth"] or 0)
        pairs += [
            (a["net"], b["net"]) for a, b in itertools.pairwise(members) if a["depth"] != b["depth"]
        ]
    return pairs


Draw = Callable[[Axes], None]
