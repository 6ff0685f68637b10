"""The report's panels: errors and gradients over steps as in v1 Figure 6, and error over depth."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from resnet_jax.reporting import naming, papers, style
from resnet_jax.reporting.load import Group, Result
from resnet_jax.reporting.statistics import mean_with_interval
from resnet_jax.reporting.style import LineEnd, Panel, label_line_ends, shorten

POINTS = 240  # More cannot be told apart on a panel.
FAMILY_MARKERS = {"plain": "o", "residual": "s", "pre-activation": "^", "other": "D"}
FEW = 5  # networks, all of which must fit on the axis
DROP = 2.0  # A learning rate that falls by less from row to row is a smooth schedule.
MOST_DROPS = 6  # that are drawn
MOST_LINES = 14  # of a panel; the names of more find no room

_DASHED = (0, (3.2, 1.8))


def panel_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """The panels of all data sets, row by row; panels of one row share their vertical scale."""
    return [row for prefix, own in _by_dataset(groups) for row in _dataset_rows(own, prefix)]


def depth_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """The panels over depth alone, of each data set with networks of more than two depths."""
    return [
        _depth_panels(own, prefix)
        for prefix, own in _by_dataset(groups)
        if len({group.depth for line in lines_over_depth(own) for group in line}) > 2
    ]


def _by_dataset(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """The groups of each data set, and what their titles begin with."""
    parts: dict[str, list[Group]] = {}
    for group in groups:
        parts.setdefault(group.dataset, []).append(group)
    return [(f"{name}: " if len(parts) > 1 else "", own) for name, own in parts.items()]


def _dataset_rows(groups: list[Group], prefix: str) -> list[list[Panel]]:
    look = looks(groups)
    families = _families([group for group in groups if _last_values(group, "error")])
    families = {name: own for name, own in families.items() if len(own) <= MOST_LINES}
    top, limits = error_top(groups), gradient_limits(groups)
    errors = [
        _panel(f"{prefix}{family}", "Training and test error against steps", members,
               draw_errors, look=look, top=top)
        for family, members in families.items()
    ]  # fmt: skip
    gradients = [
        _panel(f"{prefix}{family}, gradient norm", "Gradient norm against steps", with_norm,
               draw_gradients, look=look, limits=limits)
        for family, members in families.items()
        if (with_norm := [g for g in members if _last_values(g, "gradient_norm")])
    ]  # fmt: skip
    depths = _depth_panels(groups, prefix)
    # One family: its two panels share a row, and none stays empty.
    rows = [errors + gradients, depths] if len(families) == 1 else [errors, depths, gradients]
    return [row for row in rows if row]


def _depth_panels(groups: list[Group], prefix: str) -> list[Panel]:
    if not 0 < len(lines_over_depth(groups)) <= MOST_LINES:
        return []
    return [
        _panel(f"{prefix}{words} against depth", "Final error against depth", groups,
               draw_depths, field=field, top=top_over_depth(groups))
        for field, words in (("train_error", "Training error"), ("test_error", "Test error"))
    ]  # fmt: skip


def _families(groups: list[Group]) -> dict[str, list[Group]]:
    """What shares a panel, by title: a family, or all variants of one network."""
    models = {group.model for group in groups}
    if len(models) == 1:
        return {models.pop(): groups}
    families = {
        f"{family.capitalize()} networks": [group for group in groups if group.family == family]
        for family in naming.FAMILIES
    }
    return {title: members for title, members in families.items() if members}


def _panel(
    title: str, what: str, groups: list[Group], draw: Callable[..., None], **more: Any
) -> Panel:
    names = ", ".join(group.label for group in groups)
    return Panel(title, functools.partial(draw, groups=groups, **more), f"{what}: {names}")


# Over steps: training thin and dashed, test bold.


@dataclasses.dataclass(frozen=True)
class Look:
    """How one group is drawn, alike in every panel."""

    colour: str
    marker: str
    label: str


def looks(groups: Sequence[Group]) -> dict[int, Look]:
    """A look for each group, by `id`. Twins of one depth and setting share colour and marker."""
    kinds = sorted({_kind(group) for group in groups}, key=lambda kind: (kind[1], kind[0] or 0))
    one_model = len({group.model for group in groups}) == 1
    found = {}
    for group in groups:
        index = kinds.index(_kind(group))
        label = group.setting if one_model and group.setting else group.label
        shade = style.SERIES[style.shade(index, len(kinds))]
        found[id(group)] = Look(shade, style.MARKERS[index % len(style.MARKERS)], shorten(label))
    return found


def _kind(group: Group) -> tuple[int | None, str]:
    return group.depth, group.setting or ("" if group.depth else group.model)


def draw_errors(axes: Axes, groups: Sequence[Group], look: dict[int, Look], top: float) -> None:
    """Training and test error in percent against steps, up to `top`: median bold, seeds faint.

    A network that stays above `top` is named at the upper edge, with its error.
    """
    ends = []
    for group in groups:
        this = look[id(group)]
        trained = draw_group(axes, group, this, "train", "error", 100, width=1.0, dashed=True)
        end = draw_group(axes, group, this, "test", "error", 100, width=2.2) or trained
        if end is not None:
            beyond = f" ↑ {end[1]:.0f}%" if end[1] > top else ""
            ends.append((*end, this.label + beyond, this.colour))
    axes.set_ylim(0, top)
    axes.set_ylabel("error, %: test bold, training dashed")
    _finish_steps(axes, groups, ends)


def draw_gradients(
    axes: Axes, groups: Sequence[Group], look: dict[int, Look], limits: tuple[float, float]
) -> None:
    """Norm of the whole gradient against steps, on a logarithmic scale."""
    axes.set_yscale("log")
    axes.set_ylim(limits)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda norm, _: f"{norm:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    ends = []
    for group in groups:
        this = look[id(group)]
        end = draw_group(axes, group, this, "train", "gradient_norm", 1, width=1.6)
        if end is not None:
            ends.append((*end, this.label, this.colour))
    axes.set_ylabel("gradient norm")
    _finish_steps(axes, groups, ends)


def draw_group(
    axes: Axes,
    group: Group,
    look: Look,
    split: str,
    field: str,
    scale: float,
    width: float,
    dashed: bool = False,
) -> tuple[float, float] | None:
    """Each run faint, the median of the completed runs strong; a cross where one diverged.

    Returns where the strong line ends. Without a completed run the others' median is drawn.
    """
    line: dict[str, Any] = {"color": look.colour, "linestyle": _DASHED if dashed else "-"}
    for result in filter(_is_known, group.results) if len(group.results) > 1 else ():
        steps, values = thin(*result.curve(split, field))
        axes.plot(steps, scale * values, **line, linewidth=0.45 * width, alpha=0.32)
    for result in group.diverged:
        steps, values = result.curve(split, field)
        if steps.size:
            axes.plot(steps[-1], scale * values[-1], "x", color=look.colour, markersize=7)
    steps, values = median_curve(group.completed or group.results, split, field)
    if not steps.size:
        return None
    sparse = max(steps.size // 6, 1)
    marks: dict[str, Any] = {"marker": look.marker, "markevery": (sparse // 2, sparse)}
    axes.plot(
        steps, scale * values, **line, **({} if dashed else marks), linewidth=width, markersize=4.6,
        markerfacecolor=style.LIGHT["paper"], markeredgewidth=1.2, zorder=3,
    )  # fmt: skip
    return float(steps[-1]), float(scale * values[-1])


def _is_known(result: Result) -> bool:
    return result.status != "damaged"


def median_curve(
    results: Sequence[Result], split: str, field: str
) -> tuple[np.ndarray, np.ndarray]:
    """The median over runs at the steps that all of them have rows for; runs without rows aside."""
    known = filter(_is_known, results)
    curves = [curve for result in known if (curve := result.curve(split, field))[0].size]
    if not curves:
        return np.array([]), np.array([])
    steps = functools.reduce(np.intersect1d, (steps for steps, _ in curves))
    values = [values[np.isin(own, steps)] for own, values in curves]
    return thin(steps, np.median(values, axis=0))


def _last_values(group: Group, field: str) -> list[float]:
    """Where the strong lines of training and test end, as far as there are any."""
    runs = group.completed or group.results
    curves = (median_curve(runs, split, field)[1] for split in ("train", "test"))
    return [float(values[-1]) for values in curves if values.size]


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about `POINTS` points: means of equal shares, but the last point stays itself."""
    if steps.size <= POINTS:
        return steps, values
    shares = np.array_split(np.arange(steps.size - 1), POINTS)
    return (
        np.append([steps[share].mean() for share in shares], steps[-1]),
        np.append([values[share].mean() for share in shares], values[-1]),
    )


def learning_rate_drops(result: Result) -> list[float]:
    """Steps at which the learning rate falls at once.

    As the schedule has them; where it does not say, the last row before.
    """
    steps, rates = result.curve("train", "learning_rate")
    length, boundaries = (result.settings.get(f) for f in ("num_steps", "schedule.boundaries"))
    stated = [part * (length or 0) for part in boundaries or ()]
    return [
        next((s for s in map(round, stated) if steps[row] <= s < steps[row + 1]), float(steps[row]))
        for row in np.flatnonzero(rates[1:] * DROP <= rates[:-1])
    ]


def error_top(groups: Sequence[Group]) -> float:
    """Upper end of the error axis in percent: final errors fill the lower half, as in v1 Fig. 6.

    That figure leaves plain-110 out, above 60%. Here too one network in five may lie beyond the
    axis where that shows the others better, but never one of the few that a small sweep compares.
    """
    finals = sorted(100 * max(last) for g in groups if (last := _last_values(g, "error")))
    if len(finals) > FEW:
        finals = finals[: -(len(finals) // 5)]
    wanted = 2.2 * (finals[-1] if finals else 100)
    return next((top for top in (5, 10, 20, 30, 40, 60, 80) if top >= wanted), 100)


def gradient_limits(groups: Sequence[Group]) -> tuple[float, float]:
    """Ends of a logarithmic axis that holds every run's gradient norms."""
    found = [r.curve("train", "gradient_norm")[1] for group in groups for r in group.results]
    norms = np.concatenate([np.array([]), *found])
    norms = norms[norms > 0]
    return (norms.min() / 1.3, norms.max() * 1.3) if norms.size else (0.1, 10.0)


def _finish_steps(axes: Axes, groups: Sequence[Group], ends: Sequence[LineEnd]) -> None:
    axes.set_xlabel("step")
    last = [result.run.rows[-1]["step"] for g in groups for result in g.results if result.run.rows]
    axes.set_xlim(0, 1.012 * max([*last, 1]))  # Room for half of the last marker.
    axes.xaxis.set_major_formatter(lambda s, _: f"{s / 1000:g}k" if s >= 1000 else f"{s:g}")
    found = (learning_rate_drops(result) for group in groups for result in group.results)
    drops = sorted({step for steps in found for step in steps})
    drops = drops if len(drops) <= MOST_DROPS else []
    for step in drops:
        axes.axvline(step, color=style.LIGHT["muted"], linewidth=0.8, linestyle=":", zorder=1)
    for step in drops[:1]:
        axes.annotate(
            "learning rate drops", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
            textcoords="offset points", fontsize=8, color=style.LIGHT["muted"],
        )  # fmt: skip
    label_line_ends(axes, ends)


# Over depth: the picture of degradation in one line a family.


def lines_over_depth(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one family and setting with two depths or more, each by depth."""
    lines: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.depth is not None and group.values("train_error"):
            lines.setdefault((group.family, group.setting), []).append(group)
    return [
        sorted(line, key=lambda group: group.depth or 0)
        for line in lines.values()
        if len({group.depth for group in line}) > 1
    ]


def top_over_depth(groups: Sequence[Group]) -> float:
    """Upper end of an axis in percent on which training and test error have room."""
    values = [
        value
        for line in lines_over_depth(groups)
        for group in line
        for field in ("train_error", "test_error")
        for value in group.percents(field)
    ]
    return 1.08 * max([*values, 1.0])


def draw_depths(axes: Axes, groups: Sequence[Group], field: str, top: float) -> None:
    """`field` ("train_error" or "test_error") in percent: mean, every seed as a dot, and a band.

    The band is the 95% t interval of the mean over seeds; depths of one seed have none.
    """
    is_training = field == "train_error"
    width, dashes = (1.2, _DASHED) if is_training else (2.2, "-")
    ends, all_depths = [], set()
    lines = [[g for g in line if g.values(field)] for line in lines_over_depth(groups)]
    lines = list(filter(None, lines))
    of_family = {f: [line for line in lines if line[0].family == f] for f in naming.FAMILIES}
    for line in lines:
        family, setting = line[0].family, line[0].setting
        colour, own = style.LIGHT[f"family-{family}"], of_family[family]
        if len(own) > 1:  # Settings of one family are told apart by colour, too.
            colour = style.SERIES[style.shade(own.index(line), len(own))]
        depths = [group.depth or 0 for group in line]
        values = [group.percents(field) for group in line]
        means = [group.sample(field).mean for group in line]
        found = [mean_with_interval(percents) for percents in values]
        bands = [(d.low, d.high) if d.has_interval else (d.value,) * 2 for d in found]
        lows, highs = zip(*bands, strict=True)
        axes.fill_between(depths, lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=1)
        axes.plot(
            depths, means, color=colour, linewidth=width, linestyle=dashes, markersize=6,
            marker=FAMILY_MARKERS[family], markerfacecolor=style.LIGHT["paper"],
            markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
        for depth, seeds in zip(depths, values, strict=True):
            dots: dict[str, Any] = {"color": colour, "markersize": 5, "alpha": 0.7, "zorder": 4}
            axes.plot([depth] * len(seeds), seeds, ".", **dots)
        all_depths.update(depths)
        ends.append(
            (depths[-1], means[-1], shorten(f"{family}, {setting}" if setting else family), colour)
        )
    if not is_training:
        _mark_papers(axes, groups)
    axes.set_ylim(0, top)
    _finish_depths(axes, sorted(all_depths), ends)


def _mark_papers(axes: Axes, groups: Sequence[Group]) -> None:
    """A dash for each of the paper's numbers whose recipe the group follows."""
    for group in (group for line in lines_over_depth(groups) for group in line):
        found = papers.lookup(group.settings)
        if found and found.error is not None and not papers.recipe_diff(group.settings, found):
            axes.plot(
                group.depth or 0, found.error, marker="_", markersize=16, markeredgewidth=1.6,
                zorder=4, color=style.LIGHT["ink"],
            )  # fmt: skip


def _finish_depths(axes: Axes, depths: Sequence[int], ends: Sequence[LineEnd]) -> None:
    if depths and depths[-1] > 8 * depths[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(depths))
    axes.xaxis.set_major_formatter(lambda depth, _: f"{depth:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if depths:
        room = 0.05 * (depths[-1] - depths[0])
        axes.set_xlim(depths[0] - min(room, depths[0] / 12), depths[-1] + room)
    axes.set_xlabel("depth, layers")
    axes.set_ylabel("final error, %")
    label_line_ends(axes, ends)
