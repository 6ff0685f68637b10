"""A study's table: sorted into networks and their seeds, drawn as lines, compared and written.

A row has the columns "network", "family", "depth", "seed" and "step", and what was measured. Runs
of one network that differ in nothing but the seed share its name.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from resnet_jax.reporting import statistics, style
from resnet_jax.reporting.plots import Look
from resnet_jax.reporting.style import (
    LineEnd,
    Panel,
    label_line_ends,
    shorten_apart,
    use_log_scale,
)
from resnet_jax.runs import write_text
from resnet_jax.runs.recipe import Optimizer, Schedule

ENOUGH = 5
"""Seeds of each of two networks before a sentence says which of them has more."""

_TUNED = {"schedule", *(f.name for kind in (Optimizer, Schedule) for f in fields(kind))}
_STYLES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.4, 1.2, 1.4)))


class Interval(NamedTuple):
    """A mean over seeds and its 95% interval (Student's t), which one seed does not have."""

    mean: float
    low: float
    high: float

    def text(self, show: Callable[[float], str]) -> str:
        """E.g. "2.19 [1.98, 2.40]", or "2.19"."""
        if np.isnan(self.low):
            return show(self.mean)
        return f"{show(self.mean)} [{show(self.low)}, {show(self.high)}]"

    @property
    def percent(self) -> str:
        """The same of a fraction, whose interval ends at 0 and 1."""
        return Interval(self.mean, max(self.low, 0.0), min(self.high, 1.0)).text(percent)


def write_data(folder: Path, table: pd.DataFrame) -> None:
    """Writes data.csv."""
    write_text(folder / "data.csv", table.to_csv(index=False, float_format="%.8g"))


def write(
    folder: Path, panels: list[list[Panel]], sentences: Sequence[str], about: Sequence[str]
) -> str:
    """Writes figure.svg, figure.png and, last, finding.md; returns the finding.

    Args:
      about: paragraphs on how it was measured, which follow the finding.
    """
    with style.drawing_settings():
        figure = style.draw_all(panels)
        write_text(folder / "figure.svg", style.to_svg(figure))
        (folder / "figure.png").write_bytes(style.to_png(figure))
    finding = "\n".join(sentences)
    write_text(folder / "finding.md", "\n\n".join([finding, *about]) + "\n")
    return finding


def by(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Parts of the table by the value of a column, or of several, in the order of appearance."""
    key = columns[0] if len(columns) == 1 else list(columns)
    yield from table.groupby(key, sort=False, dropna=False)


def mean(values: Iterable[float]) -> Interval:
    """The mean over seeds, with its interval."""
    return _interval(statistics.mean_with_interval(list(values)))


def _interval(found: statistics.Difference) -> Interval:
    return Interval(*np.array([found.value, found.low, found.high], np.float64))


def geometric_mean(values: Iterable[float]) -> Interval:
    """The same of factors: the mean and interval of their logarithms."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval(*np.exp(mean(np.log(list(values)))))


def difference(values: statistics.Values, baseline: statistics.Values) -> Interval | None:
    """Mean of `values` less mean of `baseline` with Welch's interval.

    Returns:
      None where either has fewer than `ENOUGH`: then a sentence compares nothing.
    """
    if min(len(values), len(baseline)) < ENOUGH:
        return None
    return _interval(statistics.welch(values, baseline))


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Interval | None:
    """Geometric mean of `values` over that of `baseline`; see `difference`."""
    found = difference(np.log(values), np.log(baseline))
    return found and Interval(*np.exp(found))


def num_seeds(table: pd.DataFrame) -> str:
    """How many seeds the table has, in words: "one seed", "5 seeds"."""
    count = table["seed"].nunique()
    return "one seed" if count == 1 else f"{count} seeds"


def undecided(*tables: pd.DataFrame) -> str:
    """Why nothing is compared, e.g. "undecided: one seed and 3 seeds, 5 of each needed"."""
    counts = list(dict.fromkeys(map(num_seeds, tables)))
    return f"undecided: {' and '.join(counts)}, {ENOUGH} of each are needed"


def looks(table: pd.DataFrame) -> dict[str, Look]:
    """A colour for each network: its family's, or, where more than two share one, the series'."""
    networks = dict(zip(table["network"], table["family"], strict=True))
    families = list(networks.values())
    if max(families.count(family) for family in families) <= 2:
        colour: Callable[[int, str], str] = lambda _, family: style.LIGHT[f"family-{family}"]
    else:
        colour = lambda index, _: style.SERIES[style.shade(index, len(networks))]
    return {
        name: Look(colour(index, family), "o", label)
        for index, ((name, family), label) in enumerate(
            zip(networks.items(), _at_line_ends(list(networks)), strict=True)
        )
    }


def _at_line_ends(names: list[str]) -> list[str]:
    """Names that fit and tell the networks apart, without a model that all share."""
    if len({name.split(", ")[0] for name in names}) == 1 and all(map(settings, names)):
        names = list(map(settings, names))
    return shorten_apart(names)


def dashes(table: pd.DataFrame, network: str) -> Any:
    """A line's pattern: solid for a family's deepest network, broken for the others."""
    depths = table.groupby(["network", "family"], sort=False, as_index=False)["depth"].max()
    family = depths.loc[depths["network"] == network, "family"].iloc[0]
    members = depths[depths["family"] == family].sort_values(
        "depth", ascending=False, kind="stable"
    )
    return _STYLES[list(members["network"]).index(network) % len(_STYLES)]


def draw_lines(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    scale: float = 1.0,
    marker: str | None = None,
    beside: str = "",
    level: float | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """One line a network, named at its end: the median over seeds, and each of several faint.

    The medians of the column `beside` are dotted, and a muted line is at the height `level`;
    `limits` are the vertical axis's. Where `log`, values that are not positive are left out.
    """
    if log:
        use_log_scale(axes)
    if limits:
        axes.set_ylim(limits)
    if level is not None:
        axes.axhline(level, color=style.LIGHT["muted"], linewidth=0.6)
    shown = lambda y: table[(table[y] > 0) & np.isfinite(table[y])] if log else table
    if shown(y).empty:
        text = "zero everywhere" if log else "nothing to draw"
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
        return
    look, ends = looks(table), []
    for network, own in by(shown(y), "network"):
        colour = look[network].colour
        seeds = [part for _, part in by(own, "seed")]
        for part in seeds if len(seeds) > 1 else ():
            axes.plot(part[x], scale * part[y], color=colour, linewidth=0.5, alpha=0.35)
        middle = scale * own.groupby(x)[y].median()
        axes.plot(
            middle.index, middle, color=colour, linestyle=dashes(table, network), linewidth=1.6,
            marker=marker, markersize=4,
        )  # fmt: skip
        ends.append((middle.index[-1], middle.iloc[-1], look[network].label, colour))
    for network, own in by(shown(beside), "network") if beside else ():
        middle = scale * own.groupby(x)[beside].median()
        axes.plot(middle.index, middle, ":", color=look[network].colour, linewidth=0.9)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    finish(axes, shown(y)[x], ends)


def line_panel(title: str, table: pd.DataFrame, x: str, y: str, **how: Any) -> Panel:
    """A panel of `draw_lines`."""
    return Panel(title, functools.partial(draw_lines, table=table, x=x, y=y, **how))


def finish(axes: Axes, xs: Iterable[float], ends: Sequence[LineEnd]) -> None:
    """Puts the lines' names at their ends, after everything is drawn."""
    low, high = min(xs), max(xs)
    axes.set_xlim(low, high if high > low else low + 1)
    label_line_ends(axes, ends)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def listed(parts: Iterable[str]) -> str:
    """E.g. "a, b and c", or "a; b, c and d" where a part has commas of its own."""
    parts = list(parts)
    comma = "; " if any("," in part for part in parts) else ", "
    return comma.join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def settings(network: str) -> str:
    """What a network's label says beside its name: "plain-56, norm=none" has "norm=none"."""
    return network.partition(", ")[2]


def compared(network: str) -> str:
    """The settings less those of the optimiser and its schedule.

    Networks that differ in these alone, each perhaps at its own best rate, are compared all the
    same: their labels tell.
    """
    name = lambda part: part.partition("=")[0].rpartition(".")[2]
    return ", ".join(part for part in settings(network).split(", ") if name(part) not in _TUNED)


def pairs_by_family(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(shallower, deeper) networks next to each other in depth, of one family and settings.

    Those that have no such partner are paired by what is `compared`.
    """
    first = table.drop_duplicates("network")
    first = first.assign(
        settings=first["network"].map(settings), compared=first["network"].map(compared)
    )
    alone = first.groupby(["family", "settings"])["depth"].transform("nunique") == 1
    groups = [own for _, own in by(first[~alone], "family", "settings")]
    groups += [own for _, own in by(first[alone], "family", "compared")]
    pairs = []
    for members in groups:
        members = members.sort_values("depth", kind="stable")
        rows = list(zip(members["network"], members["depth"], strict=True))
        pairs += [(a, b) for (a, low), (b, high) in itertools.pairwise(rows) if low != high]
    return pairs


def twins(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(plain, other) networks of equal depth and settings; else of what is `compared`."""
    first = table.drop_duplicates("network")
    plain, pairs = first[first["family"] == "plain"], []
    for one, depth in zip(plain["network"], plain["depth"], strict=True):
        others = first[(first["family"] != "plain") & (first["depth"] == depth)]["network"]
        alike = [other for other in others if settings(other) == settings(one)]
        alike = alike or [other for other in others if compared(other) == compared(one)]
        pairs += [(one, other) for other in alike]
    return pairs


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … count − 1, evenly spaced."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})
