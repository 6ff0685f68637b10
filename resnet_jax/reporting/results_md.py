"""RESULTS.md: the papers' tables with our numbers beside theirs, and all that was measured.

It is written from a folder of archived runs and notes:

    results/NAME/               what one sweep or run found: runs as `archive` keeps them, …
    results/NAME/notes.md       … and what else is to be said of it, under a title; or a note alone
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import pandas as pd

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting import naming, papers, plots, setting_plots, style, tables, verdicts
from resnet_jax.reporting.findings import Findings, find
from resnet_jax.reporting.load import (
    DATA,
    Analysis,
    Collection,
    Group,
    Result,
    collect,
    interpret,
    read_analyses,
    tell_data_apart,
    without_copies,
)
from resnet_jax.reporting.tables import (
    NOTHING,
    Table,
    completed_seeds,
    duration,
    escape_markdown,
    fixed,
    in_paper,
    over_seeds,
)
from resnet_jax.runs import Run, write_text

INTRODUCTION = """\
# Results

Errors in percent. Test errors are those of the last step; training errors are means over the last
epoch, or over the last tenth of a run of less than ten epochs (the log row in which that period
begins counts in full). Means, standard deviations and medians are over seeds; "Time" is the median
wall time of one run.

Differences are in percentage points, with 95% intervals in brackets: Student's t over seeds,
widened so that those of one section exclude zero exactly where Holm's procedure rejects at 5%.
Intervals of errors are cut at the largest possible difference. "Detectable" is the difference
(training / test) that this many seeds find with probability .8; "Seeds for 1 point" is how many
seeds would find a difference of one point. "Reading" is higher or lower if the interval excludes
zero and the difference is at least .3 points, and the same if the whole interval is within .3.

This page is written by

    python -m experiments.report --results=RESULTS.md

from the folders in [results/](results); `experiments.report --workdir=RUNS --archive=results/NAME`
adds runs to them. A run appears in a paper's table if and only if its whole config is that table's,
and once, though several folders may have it; each folder has a heading of its own, too.
"""
CURVES = """\
v1's Figures 6 (left) and 7 are curves without numbers. `experiments.analyze --study=responses`
draws Figure 7. What the studies found is below, with the runs that they used.
"""
NOT_MEASURED = "not measured"
_MOST_SENTENCES = 6  # below the headlines, before they are folded

_NOTES = {
    "v2 Table 3": ["Medians of five runs; in parentheses mean ± standard deviation, of v2 Table 4."]
}

_WORDS = frozenset({"Network", "Hardware", "Versions", "Commit"})


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


def write_results_md(paper_tables: Sequence[PaperTable], folder: Path, output: Path) -> None:
    """Writes the page `output` from the archived runs and notes in `folder`.

    Figures are written into `folder`, beside what they show.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"results={str(output)!r}: no folder {str(folder)!r} to read from")
    places = _places(folder)
    archived = {place: collect([place]) for place in places if runs.find_runs(place)}
    results, _ = without_copies([r for found in archived.values() for r in found.results])
    results, notes = tell_data_apart(results)
    findings = {place: find(collection) for place, collection in archived.items()}
    parts = [INTRODUCTION, *_contents(places, archived, findings)]
    parts += ["## The papers' numbers", *map(escape_markdown, notes)]
    parts += [part for table in paper_tables for part in _paper_table(table, results)]
    parts += [CURVES] if paper_tables else []
    for place in places:
        if place in archived:
            parts += _section(place, archived[place], findings[place], output.parent)
    for place in places:
        if place not in archived and (title := _title(place)):
            parts += [f"## {title}", _notes(place)[1]]
    write_text(output, "\n\n".join(part.strip("\n") for part in parts) + "\n")


def write_spreads(folder: Path) -> None:
    """Writes how far seeds spread in the archive `folder`, for runs that have one seed."""
    write_text(verdicts.SPREADS, measure_spreads(folder).to_csv(index=False, lineterminator="\n"))


def measure_spreads(folder: Path) -> pd.DataFrame:
    """A row for each group of five completed seeds or more in the archive `folder`.

    The columns of errors are standard deviations in percentage points. Those of fewer seeds are too
    uncertain to stand for others, as two that agree to the digit show.
    """
    archived = [collect([place]).groups for place in _places(folder) if runs.find_runs(place)]
    rows = [
        {
            **{column: group.settings.get(field) for column, field in verdicts.SAME.items()},
            "family": group.family,
            "model": group.model,
            "settings": verdicts.other_settings(group),
            "seeds": len(group.values("test_error")),
            **{field: round(group.sample(field).std, 3) for field in verdicts.FIELDS},
        }
        for groups in archived
        for group in groups
        if len(group.values("test_error")) >= verdicts.ENOUGH_SEEDS
    ]
    return pd.DataFrame(rows)


def _places(folder: Path) -> list[Path]:
    return sorted(filter(Path.is_dir, folder.iterdir()), key=lambda path: naming.natural(path.name))


def _paper_table(table: PaperTable, results: Sequence[Result]) -> list[str]:
    rows = [
        row
        for name, config in table.configs.items()
        for row in _paper_rows(name, config, table.source, results)
    ]
    parts = [
        Table(table.title, rows, _WORDS, _NOTES.get(table.source, [])).to_markdown(),
        "The command (add `--filter='^NET-seed'` for one row):",
        f"    {_wrapped(table.command)}",
    ]
    if all(row["Ours"] == NOT_MEASURED for row in rows):
        parts = _folded(f"{len(rows)} rows, none measured yet, and their command", parts)
    return [f"### {table.source}: {escape_markdown(table.title)}", *parts]


def _folded(summary: str, parts: Sequence[str]) -> list[str]:
    return [f"<details>\n<summary>{summary}</summary>", *parts, "</details>"]


def _paper_rows(
    name: str, config: dict[str, Any], source: str, results: Sequence[Result]
) -> list[dict[str, str]]:
    """One row; or one for each kind of data that runs of this experiment saw."""
    planned = interpret(Run(Path(), config, {}, [], None, [], "missing"), "")
    number = papers.lookup(planned.settings, source)
    row = {"Network": name, "Paper": in_paper(number) if number else NOTHING}
    members: dict[int | None, list[Result]] = {}
    for result in results:
        if result.has_config and same_experiment(result.settings, planned.settings):
            members.setdefault(result.settings.get(DATA), []).append(result)
    if not members:
        columns = ("Median", "Seeds", "Training", "Hardware", "Time", "Commit")
        return [row | {"Ours": NOT_MEASURED} | dict.fromkeys(columns, NOTHING)]
    return [
        row | {"Network": f"{name}, {DATA}={kind}" if kind else name} | _ours(planned, of_kind)
        for kind, of_kind in members.items()
    ]


def _ours(planned: Result, members: Sequence[Result]) -> dict[str, str]:
    ours = Group(
        planned.dataset, planned.model, planned.family, planned.depth, "", planned.settings,
        tuple(members),
    )  # fmt: skip
    failed = f" ({ours.count_seeds('diverged')} diverged)" if ours.diverged else ""
    return {
        "Ours": over_seeds(ours, "test_error") + failed,
        "Median": fixed(ours.sample("test_error").median, 2),
        "Seeds": completed_seeds(ours),
        "Training": over_seeds(ours, "train_error"),
        "Hardware": _distinct(members, _hardware),
        "Time": duration(_median(ours.completed or members, "wall_seconds")),
        "Commit": _distinct(members, lambda result: ", ".join(result.commits)),
    }


def same_experiment(settings: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    """Whether a run's flat config is the planned one, however its network is written down.

    A field that the run's config does not have yet, because it is of an earlier version, agrees.
    """
    network, wanted = naming.architecture(settings), naming.architecture(planned)
    if network is None or network != wanted:
        return False
    fields = filter(naming.is_of_recipe, planned)
    return all(
        naming.as_text(settings[key]) == naming.as_text(planned[key])
        for key in fields
        if key in settings
    )


def _contents(
    places: Sequence[Path],
    archived: Mapping[Path, Collection],
    findings: Mapping[Path, Findings],
) -> list[str]:
    """A link to every section, with what it says of degradation if that is one sentence."""
    lines: list[str] = []
    anchors: list[str] = []
    for place in sorted(places, key=lambda place: place not in archived):
        if title := _title(place, archived.get(place)):
            said = findings[place].headlines if place in findings else []
            finding = f": {escape_markdown(said[0])}" if len(said) == 1 else ""
            if finding and findings[place].has_reservations:
                finding += " With reservations, see there."
            anchors.append(_anchor(title))
            again = anchors.count(anchors[-1]) - 1  # Both number headings that are alike.
            link = f"#{anchors[-1]}-{again}" if again else f"#{anchors[-1]}"
            lines.append(f"- [{title}]({link}){finding}")
    return ["\n".join(lines)] if lines else []


def _title(place: Path, collection: Collection | None = None) -> str:
    return _notes(place)[0] or (escape_markdown(collection.sweeps[0].title) if collection else "")


def _anchor(title: str) -> str:
    """A heading's, as GitHub and MyST make it where no other is alike."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _section(place: Path, collection: Collection, findings: Findings, root: Path) -> list[str]:
    _, text = _notes(place)
    parts = [f"## {_title(place, collection)}", *([text] if text else [])]
    parts += map(escape_markdown, findings.headlines)
    details = list(map(escape_markdown, findings.details))
    if len(details) <= _MOST_SENTENCES:
        parts += details
    else:
        parts += _folded(f"{len(details)} further sentences", details)
    parts += map(escape_markdown, findings.caveats)
    if collection.problems:
        lines = (f"- {escape_markdown(line)}" for line in collection.problems)
        parts += ["Damaged files:", "\n".join(lines)]
    shown = tables.results_tables(collection.groups)
    shown += tables.judged_tables(findings.selections, findings.arms)
    parts += [table.to_markdown() for table in shown]
    parts += _picture(place, collection.groups, findings, root)
    commands = "\n".join(f"    {_wrapped(line)}" for line in _commands(collection))
    parts += _folded(
        "How it was measured: times, hardware, versions, commits, commands",
        [_provenance(collection.groups).to_markdown(), commands],
    )
    for analysis in read_analyses(collection):
        parts += _analysis(analysis, root)
    return parts


def _notes(place: Path) -> tuple[str, str]:
    """Title and text of a note; headings are set one level deeper, as parts of the page."""
    path = place / "notes.md"
    if not path.is_file():
        return "", ""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("# "), re.sub(r"(?m)^(#+ )", r"#\1", rest.strip("\n"))


def _commands(collection: Collection) -> list[str]:
    whole = collection.sweeps[0].command
    each = [result.run.info.get("command") for result in collection.results]
    return [whole] if whole else [command for command in each if command]


def _analysis(analysis: Analysis, root: Path) -> list[str]:
    parts = [f"### {escape_markdown(analysis.name)}"]
    # A finding is Markdown already, a sentence a line.
    for block in (analysis.folder / "finding.md").read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip().splitlines()
        parts.append("\n".join(f"- {line}" for line in lines) if len(lines) > 1 else block.strip())
    if analysis.picture:
        parts.append(f"![{analysis.name}]({_link(analysis.folder / 'figure.svg', root)})")
    if (data := analysis.folder / "data.csv").is_file():
        parts.append(f"Data: [`{analysis.folder.name}/data.csv`]({_link(data, root)})")
    return parts


def _picture(place: Path, groups: Sequence[Group], findings: Findings, root: Path) -> list[str]:
    settings = setting_plots.grid_rows(groups) + setting_plots.setting_rows(findings.groups)
    rows = settings or plots.panel_rows(findings.groups)
    if not rows:
        return []
    with style.drawing_settings():
        write_text(place / "figure.svg", style.to_svg(style.draw_all(rows)))
    alternative = rows[0][0].alternative
    return [f"![{alternative}]({_link(place / 'figure.svg', root)})"]


def _link(path: Path, root: Path) -> str:
    """Where a page in `root` finds a file, whatever its folders are called."""
    return quote(path.relative_to(root).as_posix())


def _provenance(groups: Sequence[Group]) -> Table:
    rows = [
        {
            "Network": group.label,
            "Steps": fixed(done[0].steps, 0),
            "Images/s": fixed(_median(done, "images_per_second"), 0),
            "Time": duration(_median(done, "wall_seconds")),
            "Hardware": _distinct(group.results, _hardware),
            "Versions": _distinct(group.results, _versions),
            "Commit": _distinct(group.results, lambda result: ", ".join(result.commits)),
        }
        for group in groups
        for done in (group.completed or group.results,)
    ]
    return Table("How it was measured", rows, _WORDS)


def _versions(result: Result) -> str:
    versions = result.run.info.get("versions") or {}
    names = {"jax": "JAX", "python": "Python"}
    return ", ".join(f"{names[key]} {versions[key]}" for key in names if versions.get(key))


def _hardware(result: Result) -> str:
    devices, processor = result.run.info.get("devices") or "", result.run.info.get("processor")
    return f"{devices}, {processor}" if "cpu" in devices.lower() and processor else devices


def _distinct(results: Iterable[Result], describe: Callable[[Result], str]) -> str:
    texts = (describe(result) for result in results)
    return "; ".join(dict.fromkeys(filter(None, texts))) or NOTHING


def _median(results: Iterable[Result], field: str) -> float:
    values = [value for r in results if not math.isnan(value := r.final(field))]
    return median(values) if values else math.nan


def _wrapped(command: str) -> str:
    """A shell line on as many lines as it needs."""
    words, lines = shlex.split(command), [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > 88:
            lines.append("   ")
        lines[-1] += (" " if lines[-1] else "") + word
    return " \\\n    ".join(lines)
