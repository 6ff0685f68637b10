"""The look of all drawings: colours, matplotlib's settings, panels, axes and the names at lines.

Colours are in a light and a dark variant. Figures are drawn in the light ones; inside the report's
page every light colour becomes the CSS variable of its role, so that one drawing serves both.
"""

import collections
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

ROLES = {  # role: (light, dark)
    "paper": ("#ffffff", "#15171a"),
    "ink": ("#1c1e21", "#e8e6e1"),
    "muted": ("#6a6f76", "#9aa0a8"),
    "rule": ("#d9dbde", "#363a40"),
    "accent": ("#8f2d1e", "#ff9d85"),
    # Shallow to deep: apart in hue for every kind of colour vision, and darker with depth in grey
    # (lighter with depth on a dark ground).
    "series-0": ("#e09a00", "#e0b545"),
    "series-1": ("#dd6a1f", "#dd7038"),
    "series-2": ("#c93f5f", "#e3708a"),
    "series-3": ("#93409f", "#c283da"),
    "series-4": ("#4a52c8", "#8d9dff"),
    "series-5": ("#1f5a86", "#7cc4ee"),
    "series-6": ("#101c44", "#e4ecff"),
    "family-plain": ("#c4501b", "#f08a4b"),
    "family-residual": ("#1f5fa8", "#7db4f5"),
    "family-pre-activation": ("#0f6b53", "#5fd0ab"),
    "family-other": ("#5a5a62", "#b4b4bc"),
}

LIGHT = {role: light for role, (light, _) in ROLES.items()}
SERIES = tuple(LIGHT[f"series-{index}"] for index in range(7))

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

PANEL_INCHES = (4.9, 3.4)
WORDS = ("activation", "block", "initialization", "order", "parameterization", "shortcut")
"""Fields of the config that labels leave out: their values speak for themselves."""

LONGEST = 36  # characters of a name at a line's end
_EARLY = 0.93  # of the axes' width: a line that ends before that is led to its name
GAP = 0.062  # of the axes' height, between the middles of two names

_SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": LIGHT["ink"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": LIGHT["paper"],
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "resnet_jax",  # The same runs give the same bytes.
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One set of axes and what a page tells a reader who cannot see it."""

    title: str
    draw: Callable[[Axes], None]
    alternative: str = ""


def shade(index: int, count: int) -> int:
    """Of `SERIES`: few lines are spread over all, many take turns."""
    shades = len(SERIES)
    return index % shades if count > shades else round(index * (shades - 1) / max(count - 1, 1))


@contextmanager
def drawing_settings() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
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


def shorten(text: str, longest: int = LONGEST) -> str:
    """One line of at most `longest` characters, without the names of `WORDS`.

    >>> shorten("plain, activation=tanh, norm=none")
    'plain, tanh, norm=none'
    """
    text = re.sub(rf"\b({'|'.join(WORDS)})=", "", " ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def shorten_apart(texts: Sequence[str], longest: int = LONGEST) -> list[str]:
    """The texts, each cut by `shorten` unless that makes two of them alike."""
    short = [shorten(text, longest) for text in texts]
    alike = collections.Counter(short)
    return [
        cut if alike[cut] == 1 else shorten(text, len(text))
        for text, cut in zip(texts, short, strict=True)
    ]


def spread_out(places: Sequence[float], gap: float = GAP) -> np.ndarray:
    """The nearest places in [0, 1], in the same order, that are `gap` apart (less if many)."""
    order = np.argsort(places, kind="stable")
    gap = min(gap, 1 / max(len(places) - 1, 1))
    moved = np.asarray(places, np.float64)[order]
    for index in range(1, moved.size):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    ceiling = 1.0
    for index in reversed(range(moved.size)):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    result = np.empty_like(moved)
    result[order] = moved
    return result


LineEnd = tuple[float, float, str, str]
"""The x and y at which a line ends, its name and its colour."""


def label_line_ends(axes: Axes, ends: Sequence[LineEnd]) -> None:
    """Writes names to the right of the axes, each as near its line as may be.

    A dotted line leads from a line that ends early to its name: muted, as all guides are, lest it
    looks like the line going on.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    places = np.clip([to_axes.transform((x, y)) for x, y, _, _ in ends], 0, 1).reshape(-1, 2)
    heights = places[:, 1]
    for (x, own), (*_, text, colour), place in zip(places, ends, spread_out(heights), strict=True):
        if x < _EARLY:
            axes.plot([x, 1.0], [own, own], ":", color=LIGHT["muted"], linewidth=0.6,
                      transform=axes.transAxes)  # fmt: skip
        axes.plot(
            [1.0, 1.025], [own, place], color=colour, linewidth=0.8, transform=axes.transAxes,
            clip_on=False,
        )  # fmt: skip
        axes.text(
            1.035, place, text, color=colour, fontsize=9, va="center", transform=axes.transAxes,
            parse_math=False,
        )  # fmt: skip
