"""Which classes a net takes for which: counts, their table, and their picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from resnet_jax.reporting import style
from resnet_jax.reporting.exports import inert
from resnet_jax.reporting.labels import shorten
from resnet_jax.reporting.plots import drawing_settings, to_png
from resnet_jax.runs import write_text

WITH_NUMBERS = 20  # classes up to which a cell has room for its share
WITH_NAMES = 120  # classes up to which a row has room for its name
PAIRS = 12  # of the classes that are confused most often
_SHADES = LinearSegmentedColormap.from_list(
    "shares", [style.LIGHT["paper"], style.LIGHT["series-4"], style.LIGHT["series-6"]]
)


def count(labels: np.ndarray, answers: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [true class, answer]: how many examples of a class got that answer."""
    pairs = np.asarray(labels, np.int64) * num_classes + answers
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def to_csv(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """A row for each true class, a column for each answer."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [inert(name) for name in class_names]
    writer.writerow(["true class", *names])
    writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    return file.getvalue()


def most_confused(counts: np.ndarray, most: int = PAIRS) -> list[tuple[int, int, int]]:
    """The (true class, wrong answer, examples) of the most frequent mistakes."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(index, wrong.shape) for index in order)
    return [(int(t), int(a), int(wrong[t, a])) for t, a in pairs if wrong[t, a]]


def to_picture(counts: np.ndarray, class_names: Sequence[str], title: str) -> bytes:
    """PNG: the shares of answers of each true class, and the most frequent mistakes in words."""
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
    # The root of the share: mistakes are what one looks for, and they are few.
    axes.imshow(np.sqrt(shares), cmap=_SHADES, vmin=0, vmax=1, interpolation=_interpolation(counts))
    axes.grid(visible=False)
    axes.set(xlabel="answer", ylabel="true class")
    classes = range(len(names))
    if len(names) <= WITH_NAMES:
        points = float(np.clip(44 * side / len(names), 4, 10))
        labels = [shorten(name) for name in names]
        axes.set_xticks(classes, labels, rotation=90, fontsize=points, parse_math=False)
        axes.set_yticks(classes, labels, fontsize=points, parse_math=False)
        axes.tick_params(length=0)
    if len(names) <= WITH_NUMBERS:
        for true, answer in np.argwhere(counts):
            share = shares[true, answer]
            colour = style.LIGHT["paper" if share > 0.15 else "ink"]
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            axes.text(answer, true, text, ha="center", va="center", color=colour, fontsize=8)


def _interpolation(counts: np.ndarray) -> str:
    """Where a cell is smaller than a pixel, single mistakes must not fall between the pixels."""
    return "nearest" if len(counts) <= 400 else "antialiased"


def _write_mistakes(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    axes.axis("off")
    totals, right = counts.sum(1), int(np.trace(counts))
    lines = [f"{int(totals.sum()):,} examples, error {100 * (1 - right / totals.sum()):.2f}%", ""]
    pairs = most_confused(counts)
    lines += ["Most frequent mistakes" if pairs else "No mistakes"]
    for true, answer, number in pairs:
        share = 100 * number / totals[true]
        lines.append(
            f"{number:,} of {totals[true]:,} ({share:.0f}%) "
            f"{shorten(names[true])} → {shorten(names[answer])}"
        )
    if len(names) <= WITH_NUMBERS:
        lines += ["", "Cells: percent of the row"]
    axes.text(
        0, 1, "\n".join(lines), va="top", fontsize=9, linespacing=1.5, transform=axes.transAxes,
        parse_math=False,
    )  # fmt: skip


def write(
    folder: Path, labels: np.ndarray, answers: np.ndarray, class_names: Sequence[str], title: str
) -> None:
    """Writes confusion.csv and confusion.png into a folder.

    Args:
      folder: made if need be.
      labels, answers: int [examples].
      class_names: by label.
      title: of the picture.
    """
    counts = count(labels, answers, len(class_names))
    write_text(folder / "confusion.csv", to_csv(counts, class_names))
    (folder / "confusion.png").write_bytes(to_picture(counts, class_names, title))
