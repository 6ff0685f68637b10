"""Writes a study: `data.csv`, `figure.svg`, `figure.png` and `finding.md` in one folder."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from resnet_jax.reporting import plots
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row
from resnet_jax.runs import write_text


class Presentation(Protocol):
    """One of the modules beside this one."""

    TITLE: str

    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """The figure's panels, row by row."""

    def find(self, rows: Sequence[Row]) -> list[str]:
        """What was found, in sentences."""


def write_study(
    folder: Path, presentation: Presentation, rows: Sequence[Row], about: Sequence[str]
) -> str:
    """Writes the folder, `finding.md` last, and returns the finding.

    Args:
      about: paragraphs on how it was measured, which follow the finding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "data.csv", to_csv(rows))
    with plots.drawing_settings():
        figure = plots.draw_all(presentation.panels(rows))
        write_text(folder / "figure.svg", plots.to_svg(figure))
        (folder / "figure.png").write_bytes(plots.to_png(figure))
    finding = "\n".join(presentation.find(rows))
    write_text(folder / "finding.md", "\n\n".join([finding, *about]) + "\n")
    return finding


def to_csv(rows: Sequence[Row]) -> str:
    """All columns that any row has; a number that is not there is an empty field."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return file.getvalue()


def _cell(value: object) -> object:
    return f"{value:.8g}" if isinstance(value, float) else value
