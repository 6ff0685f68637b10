"""What a network predicts, in images: which classes it takes for which, and where it looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from resnet_jax.reporting.style import LIGHT, drawing_settings, shorten, to_png
from resnet_jax.reporting.tables import escape_csv_formula
from resnet_jax.runs import write_text

WITH_NUMBERS = 20  # classes up to which a cell has room for its share
WITH_NAMES = 120  # classes up to which a row has room for its name
WITH_PIXELS = 400  # classes up to which a cell is as large as a pixel
PAIRS = 12  # of the classes that are confused most often
SIDE_INCHES = 4.2  # of the longer side of an image with its map

_SHADES = LinearSegmentedColormap.from_list(
    "shares", [LIGHT["paper"], LIGHT["series-4"], LIGHT["series-6"]]
)


def write_confusion(
    folder: Path,
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> None:
    """Writes confusion.csv and confusion.png into a folder.

    Args:
      folder: made if need be.
      labels, predictions: int [examples].
      class_names: by label.
      title: of the drawing.
    """
    from sklearn.metrics import confusion_matrix  # takes as long to import as all else here

    counts = confusion_matrix(labels, predictions, labels=range(len(class_names)))
    write_text(folder / "confusion.csv", to_csv(counts, class_names))
    (folder / "confusion.png").write_bytes(draw_confusion(counts, class_names, title))


def to_csv(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """A row for each true class, a column for each prediction."""
    names = list(map(escape_csv_formula, class_names))
    table = pd.DataFrame(counts, index=names, columns=names)
    return table.to_csv(index_label="true class", lineterminator="\n")


def most_confused(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """The (true class, wrong prediction, examples) of the most frequent mistakes."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = (np.unravel_index(index, wrong.shape) for index in order)
    return [(int(t), int(p), int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], title: str) -> bytes:
    """PNG: the shares of predictions of each true class, and the most frequent mistakes."""
    side = float(np.clip(1.6 + 0.42 * len(counts), 4.5, 14))
    with drawing_settings():
        figure = Figure(figsize=(side + 4.4, side + 0.6), layout="compressed")
        matrix, words = figure.subplots(1, 2, width_ratios=(side, 4.4))
        _draw_matrix(matrix, counts, class_names, side)
        matrix.set_title(title)
        _write_mistakes(words, counts, class_names)
        return to_png(figure)


def _draw_matrix(axes: Axes, counts: np.ndarray, names: Sequence[str], side: float) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Where a cell is smaller than a pixel, single mistakes must not fall between the pixels. And
    # the root of the share: mistakes are what one looks for, and they are few.
    between = "nearest" if len(counts) <= WITH_PIXELS else "antialiased"
    axes.imshow(np.sqrt(shares), cmap=_SHADES, vmin=0, vmax=1, interpolation=between)
    axes.grid(visible=False)
    axes.set(xlabel="prediction", ylabel="true class")
    if len(names) <= WITH_NAMES:
        points = float(np.clip(44 * side / len(names), 4, 10))
        words = list(map(shorten, names))
        how: dict[str, Any] = {"labels": words, "fontsize": points, "parse_math": False}
        axes.set_xticks(range(len(names)), rotation=90, **how)
        axes.set_yticks(range(len(names)), **how)
        axes.tick_params(length=0)
    if len(names) <= WITH_NUMBERS:
        for true, predicted in np.argwhere(counts):
            share = shares[true, predicted]
            colour = LIGHT["paper" if share > 0.15 else "ink"]
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            axes.text(predicted, true, text, ha="center", va="center", color=colour, fontsize=8)


def _write_mistakes(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    axes.axis("off")
    totals, right = counts.sum(1), int(np.trace(counts))
    lines = [f"{int(totals.sum()):,} examples, error {100 * (1 - right / totals.sum()):.2f}%", ""]
    pairs = most_confused(counts)
    lines += ["Most frequent mistakes" if pairs else "No mistakes"]
    for true, predicted, number in pairs:
        share = 100 * number / totals[true]
        which = f"{shorten(names[true])} → {shorten(names[predicted])}"
        lines.append(f"{number:,} of {totals[true]:,} ({share:.0f}%) {which}")
    if len(names) <= WITH_NUMBERS:
        lines += ["", "Cells: percent of the row"]
    axes.text(
        0, 1, "\n".join(lines), va="top", fontsize=9, linespacing=1.5, transform=axes.transAxes,
        parse_math=False,
    )  # fmt: skip


def draw_map(
    image: np.ndarray,
    map: np.ndarray,
    box: tuple[int, int, int, int] | None,
    class_name: str,
    probability: float,
) -> bytes:
    """PNG: the image with the box that a class's map gives, and beside it with the map.

    Args:
      image: uint8 [height, width, 1 or 3].
      map: float [height, width]; what is not above 0 does not speak for the class.
      box: left, top, right and bottom in pixels, or None.
      class_name: what the map is of.
      probability: of that class, in [0, 1].
    """
    height, width = map.shape
    scale = SIDE_INCHES / max(height, width)
    size = (2 * max(width * scale, 1.5) + 0.3, max(height * scale, 1.5) + 0.5)
    with drawing_settings():
        figure = Figure(figsize=size, layout="compressed")
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.imshow(image if image.shape[-1] == 3 else np.repeat(image, 3, -1))
            axes.axis("off")
        share = np.clip(map / max(map.max(), 1e-12), 0, 1)
        right.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * share)
        if box:
            start, top, stop, bottom = box
            for colour, line in ((LIGHT["paper"], 3.5), (LIGHT["accent"], 1.8)):
                frame = Rectangle(
                    (start - 0.5, top - 0.5), stop - start, bottom - top,
                    fill=False, edgecolor=colour, linewidth=line, clip_on=False,
                )  # fmt: skip
                left.add_patch(frame)
        left.set_title(f"{class_name}, {100 * probability:.0f}%", parse_math=False)
        return to_png(figure)
