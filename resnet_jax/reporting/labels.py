"""Names at the ends of lines, kept apart: they replace a legend and need no colour."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

LONGEST = 30  # characters
GAP = 0.062  # of the axes' height, between the middles of two labels


def shorten(text: str) -> str:
    """One line of at most `LONGEST` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


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


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes (value, text, colour) to the right of the axes, each as near its value as may be."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((axes.get_xlim()[1], value))[1] for value, _, _ in ends]
    heights = np.clip(heights, 0, 1)
    for (_, text, colour), own, place in zip(ends, heights, spread_out(heights), strict=True):
        axes.plot(
            [1.0, 1.025], [own, place], color=colour, linewidth=0.8, transform=axes.transAxes,
            clip_on=False,
        )  # fmt: skip
        axes.text(
            1.035, place, text, color=colour, fontsize=9, va="center", transform=axes.transAxes,
            parse_math=False,
        )  # fmt: skip
