"""Tables as Markdown and runs as CSV, so that no name from a config can break or abuse them."""

import csv
import io
import math
import re
from collections.abc import Sequence

from resnet_jax.reporting import naming
from resnet_jax.reporting.load import Collection
from resnet_jax.reporting.tables import Table


def to_markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    rules = ["---:" if column in table.numeric else "---" for column in table.columns]
    body = "".join(line([escape_markdown(cell) for cell in row]) for row in table.rows)
    notes = "".join(f"\n{escape_markdown(note)}\n" for note in table.notes)
    return line(table.columns) + line(rules) + body + notes


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, HTML, link or cell border from a name."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)
    return text.replace("://", ":\u200b//")  # GitHub links bare addresses.


CSV_COLUMNS = {
    "num_params": ".0f",
    "train_loss": ".6f",
    "train_error": ".6f",
    "test_loss": ".6f",
    "test_error": ".6f",
    "images_per_second": ".1f",
    "wall_seconds": ".1f",
}
"""Figures of the summary and their format; the two that a machine's speed decides come last."""


def to_csv(collection: Collection) -> str:
    """One line a run, in natural order of names. Errors are fractions, times seconds."""
    settings = {
        id(result): group.setting for group in collection.groups for result in group.results
    }
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["run", "model", "dataset", "seed", "depth", "overrides", "status"]
    figures = list(CSV_COLUMNS)
    writer.writerow([*names, figures[0], "steps", *figures[1:]])
    for result in collection.results:
        words = [result.name, result.model, result.dataset, _word(result.seed), _word(result.depth)]
        words += [settings[id(result)], result.status]
        cells = [_csv_figure(result.final(name), form) for name, form in CSV_COLUMNS.items()]
        steps = _csv_figure(result.steps, ".0f")
        writer.writerow([*map(inert, words), cells[0], steps, *cells[1:]])
    return file.getvalue()


def _word(value: object) -> str:
    return "" if value is None else naming.as_text(value)


def _csv_figure(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
