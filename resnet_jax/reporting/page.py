"""The report of run folders: one page, the finding first, and its figures and tables as files."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from resnet_jax.reporting import naming, plots, setting_plots, style, tables
from resnet_jax.reporting.findings import Findings, describe_contrast, find
from resnet_jax.reporting.load import Collection, Group, Result, collect, read_analyses
from resnet_jax.reporting.style import Panel
from resnet_jax.reporting.tables import Table, escape_markdown
from resnet_jax.reporting.verdicts import SMALLEST_EFFECT
from resnet_jax.runs import write_text

FINAL = (
    "Test errors are those of the last step, not of the best epoch: the test set chose nothing, "
    "neither a step nor a setting. Training errors are what the optimiser saw in the last epoch, "
    "or the last tenth of a run of less than ten: augmented images, dropout if there is any, and "
    "weights that still move. Means, standard deviations and medians are over the completed runs "
    "of different seeds; runs that diverged or are unfinished are counted and left out."
)
CURVES = (
    "Training error dashed and thin, test error bold, plain and residual networks on one scale, as "
    "in Figure 6 of the first paper. Strong lines are medians over seeds, faint lines single runs, "
    "dotted verticals drops of the learning rate, crosses divergences."
)
DEPTHS = (
    " Against depth: the mean with its 95% interval as a band, and a dot for every seed; a dash is "
    "the paper's number, where its recipe was followed."
)
SETTINGS = (
    "By setting: mean final errors over seeds. Over depth and a number such as the learning rate "
    "the higher the darker, and of learning rates the best of each depth by training error bold; "
    "else a row for each setting, the lowest training error above, below all others those of which "
    "seeds diverged. A star: of some seeds, others diverged. "
)
INTERVALS = (
    "Differences of mean final errors in percentage points: deep less shallow for each family, and "
    "the plain family's less its twin's. Intervals are Student's t over seeds: paired where all "
    "four networks have the same seeds, after Welch and Satterthwaite otherwise. An interval "
    "excludes zero exactly where Holm's procedure rejects at 5% over all of them; they do not "
    "all hold together with 95%. "
    "An effect is higher or lower if its interval excludes zero and it is at least "
    f"{SMALLEST_EFFECT:g} points; the same if the whole interval is within {SMALLEST_EFFECT:g}; "
    "undecided otherwise. One seed a side has an interval only where archived runs of that data "
    "set, length and learning rate give a spread. Detectable: by these seeds with probability .8, "
    "by the same rule and each interval's own level; so the seeds for 1 point."
)

FIGURES = frozenset({"figure.png", "figure.svg", "depths.png", "settings.png"})
"""Files of a report that are there only if there is something to draw."""

LONG = 28  # characters, beyond which a cell may break its line

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
)
_ROLE_OF = {light: role for role, light in style.LIGHT.items()}


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report found, in plain sentences, and its files, by name, the page first.

    `problems` are damaged files of the runs; a figure is not there if there is nothing to draw.
    """

    files: dict[str, Path]
    finding: str
    problems: list[str]

    @property
    def index(self) -> Path:
        return self.files["index.html"]


def write_report(workdirs: Sequence[Path], output: Path) -> Report:
    """Reads the runs in `workdirs` and writes the report into the folder `output`.

    Args:
      workdirs: folders of a run or of runs (sweeps); shown together.
      output: made if absent; files of an earlier report are replaced, and figures that this one
        does not have are removed.

    Raises:
      InputError: a folder does not exist or holds no run.
    """
    collection = collect(workdirs)
    findings = find(collection)
    settings = setting_plots.grid_rows(collection.groups)
    settings += setting_plots.setting_rows(findings.groups)
    depths, rows = plots.depth_rows(findings.groups), settings + plots.panel_rows(findings.groups)
    results = tables.results_tables(collection.groups)
    judged = tables.judged_tables(findings.selections, findings.arms)
    page = render(collection, findings, results, judged, rows, SETTINGS * bool(settings))
    files: dict[str, str | bytes] = {"index.html": page}
    with style.drawing_settings():
        if rows:
            figure = style.draw_all(rows)
            svg = style.to_svg(figure)
            files |= {"figure.png": style.to_png(figure), "figure.svg": svg}
        for name, panels in (("depths.png", depths), ("settings.png", settings)):
            if panels:
                files[name] = style.to_png(style.draw_all(panels))
    files["results.csv"] = tables.to_csv(collection)
    files["results.md"] = _markdown(collection, findings, [*results, *judged])
    paths = {name: Path(output, name) for name in files}
    if Path(output, "index.html").exists():  # Else it is no report's folder.
        for name in FIGURES - files.keys():
            Path(output, name).unlink(missing_ok=True)
    for name, content in reversed(files.items()):  # The page last.
        write_text(paths[name], content)
    return Report(paths, findings.text, collection.problems)


def _title(collection: Collection) -> str:
    return " · ".join(sweep.title for sweep in collection.sweeps)


def _markdown(collection: Collection, findings: Findings, shown: Sequence[Table]) -> str:
    parts = [f"# {escape_markdown(_title(collection))}"]
    parts += map(escape_markdown, findings.text.splitlines())
    for table in shown:
        parts += [f"## {escape_markdown(table.caption)}", table.to_markdown()]
    if collection.problems:
        lines = [f"- {escape_markdown(line)}" for line in collection.problems]
        parts += ["## Damaged files", "\n".join(lines)]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, FINAL]) + "\n"


def render(
    collection: Collection,
    findings: Findings,
    results: Sequence[Table],
    judged: Sequence[Table],
    rows: Sequence[Sequence[Panel]],
    caption: str = "",
) -> str:
    """The whole page as HTML that needs no other file and no network; see page.html.j2."""
    compared = any(arm.comparisons for arm in findings.arms)
    if compared:  # The last table is of comparisons.
        judged = [*judged[:-1], dataclasses.replace(judged[-1], notes=[INTERVALS])]
    contrasts = [describe_contrast(contrast) for arm in findings.arms for contrast in arm.contrasts]
    commands = (result.run.info.get("command") for result in collection.results)
    return _ENVIRONMENT.get_template("page.html.j2").render(
        title=_title(collection),
        about=_about(collection),
        findings=findings,
        problems=collection.problems,
        panels=_inline(rows),
        caption=" ".join([*contrasts, caption + _curves(findings.groups)])
        + (DEPTHS if compared else ""),
        results=results,
        judged=judged,
        runs=tables.runs_table(collection.results),
        analyses=read_analyses(collection),
        failures=_failures(collection.results),
        making=_making(collection),
        commands=[command for command in commands if command],
        final=FINAL,
        roles=style.ROLES,
        kinds_of=_kinds_of,
        with_whole_names=_with_whole_names,
    )


def _about(collection: Collection) -> str:
    count = lambda number, noun: f"{number} {noun}{'s' * (number != 1)}"
    seeds = {str(result.seed) for result in collection.results if result.seed is not None}
    datasets = dict.fromkeys(group.dataset for group in collection.groups)
    facts = [count(len(collection.results), "run"), count(len(seeds), "seed"), ", ".join(datasets)]
    recipes = {"paper": ["the paper's recipe"], "shortened": ["a shortened recipe"]}
    for sweep in collection.sweeps:
        facts += [f"after {sweep.paper}"] if sweep.paper else []
        facts += recipes.get(sweep.recipe or "", [])
    return " · ".join(dict.fromkeys(facts))


def _curves(groups: Sequence[Group]) -> str:
    """The curves' caption, which says where some are of another split."""
    splits = {result.test_split for group in groups for result in group.results}
    other = " (of runs without one: validation error)" if "validation" in splits else ""
    return CURVES.replace("test error bold", f"test error{other} bold")


def _with_whole_names(line: str) -> Markup:
    """Keeps "plain-56's" on one line; a name too long for a phone may break."""
    whole = lambda word: re.search(r"\w-\d", word) and len(word) < LONG
    name = Markup('<span class="name">{}</span>')
    return Markup(" ").join(name.format(w) if whole(w) else escape(w) for w in line.split())


def _kinds_of(table: Table, column: str, text: str) -> str:
    """The classes of a cell, or of its column's heading."""
    kinds = [] if column in table.words else ["numeric"]
    kinds += ["words"] if column == "Reading" or len(text) > LONG else []
    if column == "Status":
        states = {"unfinished": "partial", "damaged": "failed"}
        states |= {s: s for s in ("diverged", "failed", "missing")}
        kinds += [f"status-{kind}" for state, kind in states.items() if text.startswith(state)]
    return " ".join(kinds)


def _inline(rows: Sequence[Sequence[Panel]]) -> list[list[Markup]]:
    with style.drawing_settings():
        return [
            [
                inline(
                    style.to_svg(style.draw_one(panel), transparent=True),
                    f"panel-{row_number}-{number}",
                    panel.alternative,
                )
                for number, panel in enumerate(row)
            ]
            for row_number, row in enumerate(rows)
        ]


def inline(svg: str, name: str, alternative: str) -> Markup:
    """An `<svg>` element that takes the page's colours, fonts and width.

    Args:
      svg: a file as matplotlib writes it with `svg.fonttype="none"`.
      name: put before every id, so that several drawings can stand on one page.
      alternative: what the drawing shows, for readers who cannot see it.
    """
    view, *_ = re.findall(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    # matplotlib's style sheet and metadata would apply to the whole page; the page has its own.
    body = re.sub(r"<(style|metadata)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{name}-", body)
    body = re.sub(r"\b(fill|stroke): (#[0-9a-f]{6})\b", _variable, body)
    body = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", body)
    element = Markup('<svg class="panel" role="img" aria-label="{}" viewBox="{}">{}</svg>')
    return element.format(alternative, view, Markup(body.strip()))


def _variable(match: re.Match) -> str:
    role = _ROLE_OF.get(match[2])
    return f"{match[1]}: var(--{role})" if role else match[0]


def _failures(results: Sequence[Result]) -> Iterable[tuple[str, str]]:
    """Names of failed runs, and why they failed."""
    for result in results:
        path = result.run.path / "error.txt"
        if result.status == "failed" and path.is_file():
            yield result.name, path.read_text(encoding="utf-8", errors="replace")


def _making(collection: Collection) -> dict[str, list[str]]:
    """How the runs were made; a fact of which nothing is known has no lines."""
    results = collection.results
    told = lambda field: [naming.as_text(r.run.info.get(field) or "") for r in results]
    versions = (result.run.info.get("versions") for result in results)
    varied = naming.differing(result.settings for result in results if result.has_config)
    facts: dict[str, Iterable[str | None]] = {
        "Command": [sweep.command for sweep in collection.sweeps],
        "Devices": told("devices"),
        "Processor": told("processor"),
        "Versions": map(_versions, versions),
        "Commit": map(_commit, told("commit")),
        "What varies": [_values(results, key) for key in varied],
    }
    return {name: list(dict.fromkeys(filter(None, lines))) for name, lines in facts.items()}


def _versions(versions: object) -> str:
    if isinstance(versions, dict):
        return ", ".join(f"{name} {naming.as_text(value)}" for name, value in versions.items())
    return naming.as_text(versions or "")


def _commit(commit: str) -> str:
    """A commit, in words where `runs` has marked it "+"."""
    clean = commit.removesuffix("+")
    return commit if clean == commit else f"{clean}, with uncommitted changes"


def _values(results: Sequence[Result], key: str) -> str:
    values = {naming.as_text(r.settings.get(key)) for r in results if r.has_config}
    listed = ", ".join(sorted(values, key=naming.natural))
    return re.sub(r"\s+", " ", f"{key}: {listed}")
