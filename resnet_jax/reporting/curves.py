"""Curves over steps in the form of v1 Figure 6: training thin and dashed, test bold."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from resnet_jax.reporting import style
from resnet_jax.reporting.labels import label_line_ends, shorten
from resnet_jax.reporting.results import Group, Result

POINTS = 240  # More cannot be told apart on a panel.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
FEW = 5  # nets, all of which must fit on the axis
RATE_DROP = 2.0  # A learning rate that falls by less from row to row is a smooth schedule.


@dataclasses.dataclass(frozen=True)
class Look:
    """How one group is drawn, alike in every panel."""

    colour: str
    marker: str
    label: str


def looks(groups: Sequence[Group]) -> dict[int, Look]:
    """A look for each group, by `id`. Twins of one depth and setting share colour and marker."""
    kinds = sorted({_kind(group) for group in groups}, key=lambda kind: (kind[1], kind[0] or 0))
    place = {kind: index for index, kind in enumerate(kinds)}
    one_model = len({group.model for group in groups}) == 1
    found = {}
    for group in groups:
        index = place[_kind(group)]
        shade = _shade(index, len(kinds))
        label = group.setting if one_model and group.setting else group.label
        found[id(group)] = Look(style.SERIES[shade], MARKERS[index % len(MARKERS)], shorten(label))
    return found


def _shade(index: int, count: int) -> int:
    """Spreads few kinds over all shades; many kinds take turns, and differ by their markers."""
    shades = len(style.SERIES)
    if count > shades:
        return index % shades
    return round(index * (shades - 1) / max(count - 1, 1))


def _kind(group: Group) -> tuple[int | None, str]:
    return group.depth, group.setting or ("" if group.depth else group.model)


def draw_errors(axes: Axes, groups: Sequence[Group], look: dict[int, Look], top: float) -> None:
    """Training and test error in percent against steps, up to `top`: median bold, seeds faint.

    A net that stays above `top` is named at the upper edge, with its error.
    """
    ends = []
    for group in groups:
        this = look[id(group)]
        draw_group(axes, group, this, "train", "error", 100, width=1.0, dashed=True)
        end = draw_group(axes, group, this, "test", "error", 100, width=2.2)
        end = end or last_point(group, "train", "error", 100)
        if end:
            beyond = f" ↑ {end[1]:.0f}%" if end[1] > top else ""
            ends.append((end[1], dataclasses.replace(this, label=this.label + beyond)))
    axes.set_ylim(0, top)
    axes.set_ylabel("error, %")
    _finish(axes, groups, ends)


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
        end = draw_group(axes, group, look[id(group)], "train", "gradient_norm", 1, width=1.6)
        if end:
            ends.append((end[1], look[id(group)]))
    axes.set_ylabel("gradient norm")
    _finish(axes, groups, ends)


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
    line = {"color": look.colour, "linestyle": (0, (3.2, 1.8)) if dashed else "-"}
    for result in group.results if len(group.results) > 1 else ():
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
    marks = {} if dashed else {"marker": look.marker, "markevery": (sparse // 2, sparse)}
    axes.plot(
        steps, scale * values, **line, **marks, linewidth=width, markersize=4.6,
        markerfacecolor=style.LIGHT["paper"], markeredgewidth=1.2, zorder=3,
    )  # fmt: skip
    return float(steps[-1]), float(scale * values[-1])


def last_point(group: Group, split: str, field: str, scale: float) -> tuple[float, float] | None:
    steps, values = median_curve(group.completed or group.results, split, field)
    return (float(steps[-1]), float(scale * values[-1])) if steps.size else None


def median_curve(
    results: Sequence[Result], split: str, field: str
) -> tuple[np.ndarray, np.ndarray]:
    """The median over runs at the steps that all of them have rows for; runs without rows aside."""
    curves = [curve for result in results if (curve := result.curve(split, field))[0].size]
    if not curves:
        return np.array([]), np.array([])
    steps = curves[0][0]
    for other, _ in curves[1:]:
        steps = np.intersect1d(steps, other)
    values = [values[np.isin(own, steps)] for own, values in curves]
    return thin(steps, np.median(values, axis=0))


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about `POINTS` points: means of equal shares, but the last point stays itself."""
    if steps.size <= POINTS:
        return steps, values
    shares = np.array_split(np.arange(steps.size - 1), POINTS)
    return (
        np.append([steps[share].mean() for share in shares], steps[-1]),
        np.append([values[share].mean() for share in shares], values[-1]),
    )


def rate_drops(result: Result) -> list[float]:
    """Steps at which the learning rate falls at once."""
    steps, rates = result.curve("train", "learning_rate")
    fallen = rates[1:] * RATE_DROP <= rates[:-1]
    return steps[:-1][fallen].tolist()


def error_top(groups: Sequence[Group]) -> float:
    """Upper end of the error axis in percent: final errors fill the lower half, as in v1 Fig. 6.

    That figure leaves plain-110 out, above 60%. Here too one net in five may lie beyond the axis
    where that shows the others better, but never one of the few that a small sweep compares.
    """
    finals = sorted(
        max(end[1] for end in ends if end)
        for group in groups
        if any(ends := [last_point(group, split, "error", 100) for split in ("train", "test")])
    )
    if len(finals) > FEW:
        finals = finals[: -(len(finals) // 5)]
    wanted = 2.2 * (finals[-1] if finals else 100)
    return next((top for top in (5, 10, 20, 30, 40, 60, 80) if top >= wanted), 100)


def gradient_limits(groups: Sequence[Group]) -> tuple[float, float]:
    """Ends of a logarithmic axis that holds every run's gradient norms."""
    norms = [r.curve("train", "gradient_norm")[1] for group in groups for r in group.results]
    norms = np.concatenate([np.array([]), *norms])
    norms = norms[norms > 0]
    return (norms.min() / 1.3, norms.max() * 1.3) if norms.size else (0.1, 10.0)


def _finish(axes: Axes, groups: Sequence[Group], ends: list[tuple[float, Look]]) -> None:
    axes.set_xlabel("step")
    last = [result.run.rows[-1]["step"] for g in groups for result in g.results if result.run.rows]
    axes.set_xlim(0, max([*last, 1]))
    axes.xaxis.set_major_formatter(lambda step, _: _steps(step))
    drops = {step for group in groups for result in group.results for step in rate_drops(result)}
    for step in sorted(drops) if len(drops) <= 6 else ():
        axes.axvline(step, color=style.LIGHT["muted"], linewidth=0.8, linestyle=":", zorder=1)
        axes.annotate(
            "rate ↓", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
            textcoords="offset points", fontsize=8, color=style.LIGHT["muted"],
        )  # fmt: skip
    label_line_ends(axes, [(y, look.label, look.colour) for y, look in ends])


def _steps(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 1000 else f"{step:g}"
