"""Writes a report of run folders: page, figure and tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.reporting import exports, plots
from resnet_jax.reporting.analyses import read_analyses
from resnet_jax.reporting.findings import Findings, find
from resnet_jax.reporting.load import Collection, collect
from resnet_jax.reporting.markup import Markup
from resnet_jax.reporting.page import FINAL, render
from resnet_jax.reporting.results import Group
from resnet_jax.reporting.svg import inline
from resnet_jax.reporting.tables import Table, comparisons_table, results_table, selection_table
from resnet_jax.runs import write_text


@dataclasses.dataclass(frozen=True)
class Report:
    """Where the report lies, and what it found, in plain sentences; `problems`: damaged files."""

    index: Path
    figure_png: Path | None
    figure_svg: Path | None
    depths_png: Path | None
    results_csv: Path
    results_markdown: Path
    finding: str
    problems: list[str]

    @property
    def paths(self) -> list[Path]:
        """The files that were written."""
        found = (
            self.index,
            self.figure_png,
            self.figure_svg,
            self.depths_png,
            self.results_csv,
            self.results_markdown,
        )
        return [path for path in found if path is not None]


def write_report(workdirs: Sequence[Path], output: Path) -> Report:
    """Reads the runs in `workdirs` and writes the report into the folder `output`.

    Args:
      workdirs: folders of a run or of runs (sweeps); shown together.
      output: made if absent; files of an earlier report are replaced.

    Raises:
      InputError: a folder does not exist or holds no run.
    """
    collection = collect(workdirs)
    findings = find(collection)
    tables = _tables(collection)
    rows = plots.panel_rows(findings.groups)
    output = Path(output)
    report = Report(
        index=output / "index.html",
        figure_png=output / "figure.png" if rows else None,
        figure_svg=output / "figure.svg" if rows else None,
        depths_png=output / "depths.png" if plots.depth_rows(findings.groups) else None,
        results_csv=output / "results.csv",
        results_markdown=output / "results.md",
        finding=findings.text,
        problems=collection.problems,
    )
    output.mkdir(parents=True, exist_ok=True)
    _write_figures(report, rows, plots.depth_rows(findings.groups))
    write_text(report.results_csv, exports.to_csv(collection))
    write_text(report.results_markdown, _markdown(collection, findings, tables))
    page = render(collection, findings, tables, _inline(rows), read_analyses(collection))
    write_text(report.index, page)
    return report


def _tables(collection: Collection) -> list[Table]:
    by_dataset: dict[str, list[Group]] = {}
    for group in collection.groups:
        by_dataset.setdefault(group.dataset, []).append(group)
    return [results_table(dataset, groups) for dataset, groups in by_dataset.items()]


def _write_figures(
    report: Report, rows: list[list[plots.Panel]], depths: list[list[plots.Panel]]
) -> None:
    with plots.drawing_settings():
        if rows:
            figure = plots.draw_all(rows)
            write_text(report.figure_svg, plots.to_svg(figure))
            report.figure_png.write_bytes(plots.to_png(figure))
        if depths:
            report.depths_png.write_bytes(plots.to_png(plots.draw_all(depths)))


def _inline(rows: list[list[plots.Panel]]) -> list[list[Markup]]:
    with plots.drawing_settings():
        return [
            [
                inline(
                    plots.to_svg(plots.draw_one(panel), transparent=True),
                    f"panel-{row_number}-{number}",
                    panel.alternative,
                )
                for number, panel in enumerate(row)
            ]
            for row_number, row in enumerate(rows)
        ]


def _markdown(collection: Collection, findings: Findings, tables: list[Table]) -> str:
    title = " · ".join(sweep.title for sweep in collection.sweeps)
    parts = [f"# {exports.escape_markdown(title)}"]
    parts += [exports.escape_markdown(line) for line in findings.text.splitlines()]
    for table in tables:
        parts += [f"## {exports.escape_markdown(table.caption)}", exports.to_markdown(table)]
    if findings.selections:
        table = selection_table(findings.selections)
        parts += [f"## {table.caption}", exports.to_markdown(table)]
    if any(arm.comparisons for arm in findings.arms):
        table = comparisons_table(findings.arms)
        parts += [f"## {table.caption}", exports.to_markdown(table)]
    if collection.problems:
        parts += ["## Damaged files"]
        parts += ["\n".join(f"- {exports.escape_markdown(line)}" for line in collection.problems)]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, FINAL]) + "\n"
