"""The report's panels, and the figure that holds them all."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from resnet_jax.reporting import naming, style
from resnet_jax.reporting.curves import (
    draw_errors,
    draw_gradients,
    error_top,
    gradient_limits,
    last_point,
    looks,
)
from resnet_jax.reporting.depths import draw_depths, lines_over_depth, top_over_depth
from resnet_jax.reporting.results import Group

PANEL_INCHES = (4.9, 3.4)

SETTINGS = {
    "axes.edgecolor": style.LIGHT["muted"],
    "axes.labelcolor": style.LIGHT["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": style.LIGHT["ink"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": style.LIGHT["rule"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": style.LIGHT["paper"],
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": style.LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": style.LIGHT["muted"],
    "ytick.color": style.LIGHT["muted"],
    "xtick.labelcolor": style.LIGHT["ink"],
    "ytick.labelcolor": style.LIGHT["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "resnet_jax",  # The same runs give the same bytes.
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One set of axes and what a reader who cannot see it is told."""

    title: str
    alternative: str
    draw: Callable[[Axes], None]


def panel_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """The panels of all data sets, row by row; panels of one row share their vertical scale."""
    rows = []
    datasets = list(dict.fromkeys(group.dataset for group in groups))
    for dataset in datasets:
        of_dataset = [group for group in groups if group.dataset == dataset]
        prefix = f"{dataset}: " if len(datasets) > 1 else ""
        rows += _dataset_rows(of_dataset, prefix)
    return rows


def _dataset_rows(groups: list[Group], prefix: str) -> list[list[Panel]]:
    look = looks(groups)
    families = _families([group for group in groups if _has_curve(group, "error")])
    top, limits, highest = error_top(groups), gradient_limits(groups), top_over_depth(groups)
    errors = [
        _panel(f"{prefix}{family}", "Training and test error against steps", members,
               functools.partial(draw_errors, groups=members, look=look, top=top))
        for family, members in families.items()
    ]  # fmt: skip
    gradients = [
        _panel(f"{prefix}{family}, gradient norm", "Gradient norm against steps", with_norm,
               functools.partial(draw_gradients, groups=with_norm, look=look, limits=limits))
        for family, members in families.items()
        if (with_norm := [g for g in members if _has_curve(g, "gradient_norm")])
    ]  # fmt: skip
    depths = _depth_panels(groups, prefix, highest)
    if len(families) == 1:  # One family: its two panels share a row, and none stays empty.
        return [row for row in (errors + gradients, depths) if row]
    return [row for row in (errors, depths, gradients) if row]


def _depth_panels(groups: list[Group], prefix: str, top: float) -> list[Panel]:
    return [
        _panel(f"{prefix}{words} against depth", "Final error against depth", groups,
               functools.partial(draw_depths, groups=groups, field=field, top=top))
        for field, words in (("train_error", "Training error"), ("test_error", "Test error"))
        if lines_over_depth(groups)
    ]  # fmt: skip


def depth_rows(groups: Sequence[Group]) -> list[list[Panel]]:
    """The panels over depth alone, of each data set with networks of more than two depths."""
    datasets = {
        group.dataset: [g for g in groups if g.dataset == group.dataset] for group in groups
    }
    rows = []
    for name, members in datasets.items():
        if len({g.depth for line in lines_over_depth(members) for g in line}) > 2:
            prefix = f"{name}: " if len(datasets) > 1 else ""
            rows.append(_depth_panels(members, prefix, top_over_depth(members)))
    return rows


def _families(groups: list[Group]) -> dict[str, list[Group]]:
    """What shares a panel, by title: a family, or all variants of one net."""
    models = {group.model for group in groups}
    if len(models) == 1:
        return {models.pop(): groups}
    families = {
        f"{f.capitalize()} nets": [g for g in groups if g.family == f] for f in naming.FAMILIES
    }
    return {title: members for title, members in families.items() if members}


def _panel(title: str, what: str, groups: list[Group], draw: Callable[[Axes], None]) -> Panel:
    names = ", ".join(group.label for group in groups)
    return Panel(title, f"{what}: {names}", draw)


def _has_curve(group: Group, field: str) -> bool:
    return any(last_point(group, split, field, 1) for split in ("train", "test"))


@contextmanager
def drawing_settings() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def draw_all(rows: Sequence[Sequence[Panel]]) -> Figure:
    """One figure of all panels. Call within `drawing_settings`."""
    width, height = PANEL_INCHES
    columns = max(map(len, rows))
    size = (width * max(columns, 1.3), height * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    for row, strip in zip(rows, figure.subfigures(len(rows), 1, squeeze=False)[:, 0], strict=True):
        strip.set_facecolor("none")
        all_axes = strip.subplots(1, len(row), squeeze=False)[0]
        for panel, axes in zip(row, all_axes, strict=True):
            panel.draw(axes)
            axes.set_title(panel.title)
    return figure


def draw_one(panel: Panel) -> Figure:
    """One panel by itself, with room for its labels. Call within `drawing_settings`."""
    figure = Figure(figsize=PANEL_INCHES, layout="constrained")
    axes = figure.add_subplot()
    panel.draw(axes)
    axes.set_title(panel.title)
    return figure


def to_svg(figure: Figure, transparent: bool = False) -> str:
    """The figure as SVG, the same bytes for the same figure."""
    file = io.StringIO()
    dateless = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=dateless, transparent=transparent)
    return file.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def use_log_scale(axes: Axes) -> None:
    """A logarithmic vertical axis with few, plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: number(value))


def number(value: float) -> str:
    """Three figures, for sentences and axes: "0.0312", "1.2e-08", "4.5e+06"."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2g}"
