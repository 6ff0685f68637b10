"""Final error by setting: over the plane of depth and one number, and in a row for each setting."""

import collections
import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from resnet_jax.reporting import naming, style
from resnet_jax.reporting.load import FINISHED, Group, number
from resnet_jax.reporting.selection import OPTIMISER
from resnet_jax.reporting.style import Panel
from resnet_jax.reporting.verdicts import FIELDS

FEWEST = 3
"""Depths and values of a plane; a line for each of fewer values says as much."""

_LONGEST = 60  # characters of a setting, where these tell rows apart
FEWEST_ROWS, MOST_ROWS = 5, 24
"""Settings: of fewer, curves say as much, and more find no room."""


@dataclasses.dataclass(frozen=True)
class Plane:
    """Networks of one family that differ in depth and in one field alone.

    `rest` tells it from the family's other planes, `prefix` from those of other data sets. `groups`
    has one for each depth and value that was run.
    """

    prefix: str
    field: str
    family: str
    rest: str
    groups: dict[tuple[int, float], Group]

    @property
    def depths(self) -> list[int]:
        return sorted({depth for depth, _ in self.groups})

    @property
    def values(self) -> list[float]:
        return sorted({value for _, value in self.groups})

    @property
    def title(self) -> str:
        return self.prefix + ", ".join(filter(None, [self.family.capitalize(), self.rest]))


def find_planes(groups: Sequence[Group]) -> list[Plane]:
    """Planes of `FEWEST` depths and values or more, of every data set and numeric field."""
    planes = []
    datasets = dict.fromkeys(group.dataset for group in groups)
    for dataset in datasets:
        prefix = f"{dataset}: " if len(datasets) > 1 else ""
        own = [group for group in groups if group.dataset == dataset and group.depth is not None]
        varied = naming.differing(group.settings for group in own)
        for field in varied:
            numeric = [g for g in own if not math.isnan(number(g.settings.get(field)))]
            planes += _planes_of(field, numeric, varied, prefix)
    return planes


def _planes_of(field: str, groups: list[Group], varied: Sequence[str], prefix: str) -> list[Plane]:
    found: dict[tuple[str, str], dict[tuple[int, float], Group]] = {}
    crowded = set()  # Two networks of one depth and value: no plane shows both.
    for group in groups:
        others = [key for key in varied if key not in (field, "model.name")]
        key = naming.describe_settings(group.settings, others), group.family
        plane, cell = found.setdefault(key, {}), (group.depth or 0, group.settings[field])
        if plane.setdefault(cell, group) is not group:
            crowded.add(key)
    planes = [
        Plane(prefix, field, family, rest, own)
        for (rest, family), own in found.items()
        if (rest, family) not in crowded
    ]
    return [p for p in planes if len(p.depths) >= FEWEST and len(p.values) >= FEWEST]


def grid_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """Two panels a row: of one plane both errors, of several, such as families, training error."""
    rows = []
    planes = find_planes(groups)
    for field in dict.fromkeys(plane.field for plane in planes):
        own = [plane for plane in planes if plane.field == field]
        errors = [*FIELDS.items()][: 1 if len(own) > 1 else None]
        panels = [_panel(plane, error, words) for plane in own for error, words in errors]
        rows += [panels[start : start + 2] for start in range(0, len(panels), 2)]
    return rows


def _panel(plane: Plane, error: str, words: str) -> Panel:
    what = f"Final {words} by depth and {_name(plane.field)}: {plane.title}"
    title = f"{plane.title}: {words}, %"
    return Panel(title, partial(draw_grid, plane=plane, error=error), what)


def _name(field: str) -> str:
    return field.rsplit(".", 1)[-1]


def draw_grid(axes: Axes, plane: Plane, error: str) -> None:
    """Mean over seeds in percent in every cell, the darker the higher; "div." where all diverged.

    A star where some did. Of the optimiser's settings the best of each depth by training error is
    bold.
    """
    depths, values, best = plane.depths, plane.values, _best_values(plane)
    for (depth, value), group in plane.groups.items():
        column, row = depths.index(depth), values.index(value)
        level = group.sample(error).mean
        shade = 0 if math.isnan(level) else 0.04 + 0.009 * min(level, 100)
        square: dict[str, Any] = {
            "facecolor": style.LIGHT[f"family-{plane.family}"],
            "alpha": shade,
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **square))
        axes.text(
            column, row, _cell(group, level), ha="center", va="center", fontsize=9,
            color=style.LIGHT["paper" if shade > 0.5 else "ink"],
            fontweight="bold" if best.get(depth) == value else "normal",
        )  # fmt: skip
    axes.set_xlim(-0.5, len(depths) - 0.5)
    axes.set_ylim(-0.5, len(values) - 0.5)
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_yticks(range(len(values)), [f"{value:g}" for value in values])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_xlabel("depth, layers")
    axes.set_ylabel(_name(plane.field).replace("_", " "))


def _best_values(plane: Plane) -> dict[int, float]:
    """Of an optimiser's field, the value with the least training error at each depth."""
    if not plane.field.startswith(OPTIMISER):
        return {}
    trained = {
        key: group.sample("train_error").mean
        for key, group in plane.groups.items()
        if group.values("train_error") and not group.diverged
    }
    return dict(sorted(trained, key=trained.__getitem__, reverse=True))


def _cell(group: Group, level: float) -> str:
    if math.isnan(level):
        return "div." if group.diverged else "–"
    return (f"{level:.0f}" if level >= 10 else f"{level:.1f}") + "*" * bool(group.diverged)


def setting_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """Both errors of each data set whose networks have many settings and are in no plane."""
    in_planes = {id(g) for plane in find_planes(groups) for g in plane.groups.values()}
    groups = [group for group in groups if id(group) not in in_planes]
    rows = []
    datasets = dict.fromkeys(group.dataset for group in groups)
    for dataset in datasets:
        prefix = f"{dataset}: " if len(datasets) > 1 else ""
        own = [
            group
            for group in groups
            if group.dataset == dataset and (group.values("train_error") or group.diverged)
        ]
        if FEWEST_ROWS <= len(set(_row_names(own))) <= MOST_ROWS:
            names = ", ".join(dict.fromkeys(_row_names(own)))
            row = []
            for error, words in FIELDS.items():
                draw = partial(draw_settings, groups=own, error=error)
                title = f"{prefix}{words}" if prefix else words.capitalize()
                row.append(Panel(title, draw, f"Final {words} by setting: {names}"))
            rows.append(row)
    return rows


def _row_names(groups: Sequence[Group]) -> list[str]:
    """Of each group its family and the fields in which it is unlike most.

    Settings of the optimiser that were chosen for each network are not among them. Where these
    are alike of two groups of one depth, the network's name stands for its family.
    """
    varied = naming.differing(group.settings for group in groups)
    tuned = OPTIMISER if any(group.chosen for group in groups) else ()
    varied = [key for key in varied if key != "model.name" and not key.startswith(tuned)]
    unlike = naming.unusual((group.settings for group in groups), varied)
    words = (
        naming.describe_settings(group.settings, fields)
        for group, fields in zip(groups, unlike, strict=True)
    )
    pairs = list(zip(groups, words, strict=True))
    places = collections.Counter((g.family, g.depth, said) for g, said in pairs)
    names = [g.family if places[g.family, g.depth, said] == 1 else g.model for g, said in pairs]
    return [", ".join(filter(None, own)) for own in zip(names, (w for _, w in pairs), strict=True)]


def _size(group: Group) -> str:
    return f"{group.depth} layers" if group.depth else group.model


def draw_settings(axes: Axes, groups: Sequence[Group], error: str) -> None:
    """A row for each setting, best above: every seed a dot, and a mark at each depth's mean.

    Below all others are those of which seeds diverged, with their number.
    """
    names = _row_names(groups)
    rank: dict[str, float] = {}
    for name, group in zip(names, groups, strict=True):
        last = math.inf if group.diverged else group.sample("train_error").mean
        rank[name] = max(rank.get(name, 0.0), last)
    order = sorted(rank, key=rank.__getitem__, reverse=True)
    depths = sorted({group.depth or 0 for group in groups})
    colours = [style.SERIES[style.shade(index, len(depths))] for index in range(len(depths))]
    for name, group in zip(names, groups, strict=True):
        kind, row = depths.index(group.depth or 0), order.index(name)
        values = group.percents(error)
        axes.plot(values, [row] * len(values), ".", color=colours[kind], markersize=4, alpha=0.6)
        axes.plot(
            group.sample(error).mean, row, style.MARKERS[kind % len(style.MARKERS)],
            color=colours[kind], markerfacecolor=style.LIGHT["paper"], markersize=6,
            label=_size(group),
        )  # fmt: skip
    for row, name in enumerate(order):
        own = [group for of, group in zip(names, groups, strict=True) if of == name]
        lost = [
            f"{_size(group)}: {group.count_seeds('diverged')} of "
            f"{group.count_seeds(*FINISHED)} diverged"
            for group in own
            if group.diverged
        ]
        axes.text(
            0.99, row, ", ".join(lost), transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=7, color=style.LIGHT["muted"],
        )  # fmt: skip
    axes.set_yticks(range(len(order)), style.shorten_apart(order, _LONGEST), fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(left=0)
    axes.grid(axis="x", visible=True)
    axes.set_xlabel("final error, %")
    if len(depths) > 1:
        unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
