"""Final error against depth: the picture of degradation in one line a family."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from resnet_jax.reporting import papers, recipe_diff, style
from resnet_jax.reporting.labels import label_line_ends, shorten
from resnet_jax.reporting.results import Group
from resnet_jax.reporting.statistics import paired, summarize
from resnet_jax.reporting.verdicts import percent

MARKERS = {"plain": "o", "residual": "s", "pre-activation": "^", "other": "D"}


def lines_over_depth(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one family and setting with two depths or more, each by depth."""
    lines: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.depth is not None and group.values("train_error"):
            lines.setdefault((group.family, group.setting), []).append(group)
    lines = {key: sorted(line, key=lambda g: g.depth) for key, line in lines.items()}
    return [line for line in lines.values() if len({group.depth for group in line}) > 1]


def top_over_depth(groups: Sequence[Group]) -> float:
    """Upper end of an axis in percent on which training and test error have room."""
    values = [
        value
        for line in lines_over_depth(groups)
        for group in line
        for field in ("train_error", "test_error")
        for value in percent(group.values(field))
    ]
    return 1.08 * max([*values, 1.0])


def draw_depths(axes: Axes, groups: Sequence[Group], field: str, top: float) -> None:
    """`field` ("train_error" or "test_error") in percent: mean, every seed as a dot, and a band.

    The band is the 95% t interval of the mean over seeds; depths of one seed have none.
    """
    training = field == "train_error"
    ends, depths = [], set()
    for line in lines_over_depth(groups):
        line = [group for group in line if group.values(field)]
        if not line:
            continue
        family = line[0].family
        colour = style.LIGHT[f"family-{family}"]
        samples = [summarize(percent(group.values(field))) for group in line]
        intervals = [paired(percent(group.values(field))) for group in line]
        axes.fill_between(
            [group.depth for group in line],
            [interval.low if interval.has_interval else interval.value for interval in intervals],
            [interval.high if interval.has_interval else interval.value for interval in intervals],
            color=colour, alpha=0.16, linewidth=0, zorder=1,
        )  # fmt: skip
        axes.plot(
            [group.depth for group in line],
            [sample.mean for sample in samples],
            color=colour, linewidth=1.2 if training else 2.2,
            linestyle=(0, (3.2, 1.8)) if training else "-", marker=MARKERS[family], markersize=6,
            markerfacecolor=style.LIGHT["paper"], markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
        for group in line:
            values = percent(group.values(field))
            axes.plot(
                [group.depth] * len(values),
                values,
                ".",
                color=colour,
                markersize=5,
                alpha=0.7,
                zorder=4,
            )
        depths |= {group.depth for group in line}
        ends.append((samples[-1].mean, shorten(_name(line[0])), colour))
    if not training:
        _mark_papers(axes, groups)
    axes.set_ylim(0, top)
    _finish(axes, sorted(depths), ends)


def _name(group: Group) -> str:
    return f"{group.family}, {group.setting}" if group.setting else group.family


def _mark_papers(axes: Axes, groups: Sequence[Group]) -> None:
    """A dash for each of the paper's numbers whose recipe the group follows."""
    for group in (group for line in lines_over_depth(groups) for group in line):
        number = papers.lookup(group.settings)
        if (
            number
            and number.error is not None
            and not recipe_diff.departures(group.settings, number)
        ):
            axes.plot(
                group.depth, number.error, marker="_", markersize=16, markeredgewidth=1.6,
                zorder=4, color=style.LIGHT["ink"],
            )  # fmt: skip


def _finish(axes: Axes, depths: list[int], ends: list[tuple[float, str, str]]) -> None:
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
