"""RESULTS.md: the papers' tables with our numbers beside theirs, and all that was measured.

It is written from a folder of archived runs and notes:

    results/NAME/               what one sweep or run found: runs as `archive` keeps them, …
    results/NAME/notes.md       … and what else is to be said of it, under a title; or a note alone
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting import exports, naming, papers, plots
from resnet_jax.reporting.analyses import Analysis, read_analyses
from resnet_jax.reporting.findings import Findings, find
from resnet_jax.reporting.formatting import NOTHING, duration, fixed, spread
from resnet_jax.reporting.load import Collection, collect
from resnet_jax.reporting.results import Group, Result, interpret
from resnet_jax.reporting.statistics import summarize
from resnet_jax.reporting.tables import (
    Table,
    comparisons_table,
    in_paper,
    results_table,
    selection_table,
)
from resnet_jax.reporting.verdicts import percent
from resnet_jax.runs import Run, write_text

INTRODUCTION = """\
# Results

Errors in percent. Those of a test are of the last step; training errors are means over the last
epoch, or over the last tenth of a run of less than ten epochs. Means, standard deviations and
medians are over seeds; "Time" is the median wall time of one run. This page is written by

    python -m experiments.report --results=RESULTS.md

from the folders in [results/](results); `experiments.report --workdir=RUNS --archive=results/NAME`
adds runs to them. A run enters a paper's table if its whole config is that table's, and stands
under its own heading otherwise.
"""
CURVES = """\
v1's Figures 6 (left) and 7 are curves without numbers. `experiments.analyze --study=responses`
draws Figure 7; what it and the other studies found stands below, with the runs they looked at.
"""
NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table or figure of a paper, as the runs that would repeat it.

    Attributes:
      title: for people.
      source: paper and table.
      command: of the sweep that makes all rows.
      configs: of one run a row, by the name of its folder, in the paper's order.
    """

    title: str
    source: str
    command: str
    configs: Mapping[str, dict[str, Any]]


def write_record(tables: Sequence[PaperTable], folder: Path, output: Path) -> None:
    """Writes the page `output` from the archived runs and notes in `folder`.

    Figures are written into `folder`, beside what they show.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"results={str(output)!r}: no folder {str(folder)!r} to read from")
    places = sorted(filter(Path.is_dir, folder.iterdir()), key=lambda p: naming.natural(p.name))
    archived = {place: collect([place]) for place in places if runs.find_runs(place)}
    results = [result for collection in archived.values() for result in collection.results]
    parts = [INTRODUCTION, "## The papers' numbers"]
    parts += [part for table in tables for part in _paper_table(table, results)]
    parts += [CURVES] if tables else []
    for place in places:
        parts += _section(place, archived.get(place), output.parent)
    write_text(output, "\n\n".join(part.strip("\n") for part in parts) + "\n")


def _paper_table(table: PaperTable, results: Sequence[Result]) -> list[str]:
    columns = ("Net", "Paper", "Ours", "Median", "Seeds", "Training", "Hardware", "Time", "Commit")
    rows = [
        (name, *_paper_row(config, table.source, results)) for name, config in table.configs.items()
    ]
    words = frozenset({"Net", "Hardware", "Commit"})
    return [
        f"### {table.source}: {exports.escape_markdown(table.title)}",
        exports.to_markdown(Table(table.title, columns, frozenset(columns) - words, rows)),
        "The command; for one row, with `--filter='^NET-seed'`:",
        f"    {_wrapped(table.command)}",
    ]


def _paper_row(config: dict[str, Any], source: str, results: Sequence[Result]) -> tuple[str, ...]:
    row = interpret(Run(Path(), config, {}, [], None, [], "missing"), "")
    number = papers.lookup(row.settings, source)
    paper = in_paper(number) if number else NOTHING
    members = tuple(r for r in results if same_experiment(r.settings, row.settings))
    if not members:
        return (paper, NOT_MEASURED, *[NOTHING] * 6)
    ours = Group(row.dataset, row.model, row.family, row.depth, "", row.settings, members)
    test = summarize(percent(ours.values("test_error")))
    train = summarize(percent(ours.values("train_error")))
    failed = f" ({ours.count_seeds('diverged')} diverged)" if ours.diverged else ""
    return (
        paper,
        spread(test.mean, test.std) + failed,
        fixed(test.median, 2),
        str(ours.count_seeds()),
        spread(train.mean, train.std),
        _hardware(ours.results),
        _time(ours.results),
        _commits(ours.results),
    )


def same_experiment(settings: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    """Whether a run's flat config is the planned one, however its network is written down.

    A field that the run's config does not have yet, because it is of an earlier version, agrees.
    """
    net, wanted = naming.architecture(settings), naming.architecture(planned)
    if net is None or net != wanted:
        return False
    own = {"model.bn_group_size", "model.dtype"}
    fields = [key for key in planned if not key.startswith("model.") or key in own]
    return all(
        naming.as_text(settings[key]) == naming.as_text(planned[key])
        for key in fields
        if key in settings
    )


def _section(place: Path, collection: Collection | None, root: Path) -> list[str]:
    title, text = _notes(place / "notes.md")
    if collection is None:
        return [f"## {title}", text] if title else []
    findings = find(collection)
    parts = [f"## {title or exports.escape_markdown(collection.sweeps[0].title)}"]
    parts += [text] if text else []
    parts += [exports.escape_markdown(line) for line in findings.text.splitlines()]
    for dataset in dict.fromkeys(row.dataset for row in collection.groups):
        rows = [row for row in collection.groups if row.dataset == dataset]
        parts.append(exports.to_markdown(results_table(dataset, rows)))
    if findings.selections:
        parts.append(exports.to_markdown(selection_table(findings.selections)))
    if any(arm.comparisons for arm in findings.arms):
        parts.append(exports.to_markdown(comparisons_table(findings.arms)))
    parts += _picture(place, findings, root)
    parts += ["How it was measured:", exports.to_markdown(_provenance(collection.groups))]
    parts.append("\n".join(f"    {_wrapped(line)}" for line in _commands(collection)))
    for analysis in read_analyses(collection):
        parts += _analysis(analysis, root)
    return parts


def _notes(path: Path) -> tuple[str, str]:
    """Title and text of a note; headings are set one level deeper, as parts of the page."""
    if not path.is_file():
        return "", ""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("# "), re.sub(r"(?m)^(#+ )", r"#\1", rest.strip("\n"))


def _commands(collection: Collection) -> list[str]:
    whole = collection.sweeps[0].command
    each = [result.run.info.get("command") for result in collection.results]
    return [whole] if whole else [command for command in each if command]


def _analysis(analysis: Analysis, root: Path) -> list[str]:
    parts = [f"### {exports.escape_markdown(analysis.name)}"]
    # A finding is Markdown already, a sentence a line.
    for block in (analysis.folder / "finding.md").read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip().splitlines()
        parts.append("\n".join(f"- {line}" for line in lines) if len(lines) > 1 else block.strip())
    if analysis.picture:
        path = (analysis.folder / "figure.svg").relative_to(root)
        parts.append(f"![{analysis.name}]({path.as_posix()})")
    return parts


def _picture(place: Path, findings: Findings, root: Path) -> list[str]:
    rows = plots.panel_rows(findings.groups)
    if not rows:
        return []
    with plots.drawing_settings():
        write_text(place / "figure.svg", plots.to_svg(plots.draw_all(rows)))
    alternative = rows[0][0].alternative
    return [f"![{alternative}]({(place / 'figure.svg').relative_to(root).as_posix()})"]


def _provenance(groups: Sequence[Group]) -> Table:
    columns = ("Net", "Steps", "Images/s", "Time", "Hardware", "Versions", "Commit")
    rows = [
        (
            row.label,
            fixed(row.results[0].steps, 0),
            fixed(_median(row.results, "images_per_second"), 0),
            _time(row.results),
            _hardware(row.results),
            _distinct(_versions(result) for result in row.results),
            _commits(row.results),
        )
        for row in groups
    ]
    words = frozenset({"Net", "Hardware", "Versions", "Commit"})
    return Table("How it was measured", columns, frozenset(columns) - words, rows)


def _versions(result: Result) -> str:
    versions = result.run.info.get("versions") or {}
    return ", ".join(
        f"{name} {versions[key]}"
        for key, name in (("jax", "JAX"), ("python", "Python"))
        if versions.get(key)
    )


def _hardware(results: Sequence[Result]) -> str:
    def describe(info: Mapping[str, Any]) -> str:
        devices, processor = info.get("devices") or "", info.get("processor")
        return f"{devices}, {processor}" if "cpu" in devices.lower() and processor else devices

    return _distinct(describe(result.run.info) for result in results)


def _commits(results: Sequence[Result]) -> str:
    """In short; "+" stands for uncommitted changes, see `runs`."""
    commits = (str(result.run.info.get("commit") or "") for result in results)
    return _distinct(commit[:7] + "+" * commit.endswith("+") for commit in commits)


def _time(results: Sequence[Result]) -> str:
    return duration(_median(results, "wall_seconds"))


def _median(results: Sequence[Result], field: str) -> float:
    values = [value for r in results if not math.isnan(value := r.final(field))]
    return summarize(values).median


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts))) or NOTHING


def _wrapped(command: str) -> str:
    """A shell line on as many lines as it needs."""
    words, lines = shlex.split(command), [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > 88:
            lines.append("   ")
        lines[-1] += (" " if lines[-1] else "") + word
    return " \\\n    ".join(lines)
