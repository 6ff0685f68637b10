"""The report's page: the finding first, the picture second, the details after."""

import re
from collections.abc import Iterable, Sequence

from resnet_jax.reporting import naming, style
from resnet_jax.reporting.analyses import Analysis
from resnet_jax.reporting.findings import Findings, describe_contrast
from resnet_jax.reporting.load import Collection
from resnet_jax.reporting.markup import Markup, escape, join, tag
from resnet_jax.reporting.results import Result
from resnet_jax.reporting.tables import Table, comparisons_table, runs_table, selection_table
from resnet_jax.reporting.verdicts import SMALLEST_EFFECT

FINAL = (
    "Test errors are those of the last step, not of the best epoch: the test set chose nothing, "
    "neither a step nor a setting. Training errors are what the optimiser saw in the last epoch, "
    "or the last tenth of a run of less than ten: augmented images, dropout if there is any, and "
    "weights that still move. Means, standard deviations and medians are over the completed runs "
    "of different seeds; runs that diverged or are unfinished are counted and left out."
)
CURVES = (
    "Training error dashed and thin, test error bold, plain and residual nets on one scale, as in "
    "Figure 6 of the first paper. Strong lines are medians over seeds, faint lines single runs, "
    "dotted verticals drops of the learning rate, crosses divergences."
)
DEPTHS = (
    " Against depth: the mean with its 95% interval as a band, and a dot for every seed; a dash is "
    "the paper's number, where its recipe was followed."
)
INTERVALS = (
    "Differences of mean final errors in percentage points: deep less shallow for each family, and "
    "the plain family's less its twin's. Intervals are Student's t over seeds: paired where all "
    "four networks have the same seeds, after Welch and Satterthwaite otherwise; 95% together, "
    "after Holm. "
    "An effect is higher or lower if its interval excludes zero and it is at least "
    f"{SMALLEST_EFFECT:g} points; the same if the whole interval is within {SMALLEST_EFFECT:g}; "
    "undecided otherwise. One seed a side has an interval only where archived runs of that data "
    "set, length and learning rate give a spread. Detectable: by these seeds with probability .8, "
    "for a single comparison at 5%."
)


def render(
    collection: Collection,
    findings: Findings,
    tables: Sequence[Table],
    panels: Sequence[Sequence[Markup]],
    analyses: Sequence[Analysis],
) -> str:
    """The whole page as HTML that needs no other file and no network."""
    title = " · ".join(sweep.title for sweep in collection.sweeps)
    body = [
        tag("header", tag("h1", title), tag("p", _about(collection), class_="about")),
        _finding(findings),
        _warning(collection.problems),
        _figure(panels, _caption(findings)),
        tag("h2", "Results"),
        *(_table(table, heading=len(tables) > 1) for table in tables),
        tag("p", FINAL, class_="note"),
        *_selections(findings),
        *_degradation(findings),
        *map(_analysis, analyses),
        tag("h2", "Runs"),
        _table(runs_table(collection.results)),
        *_failures(collection.results),
        *_making(collection),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(style.SHEET)),
    ]
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _about(collection: Collection) -> str:
    runs = len(collection.results)
    seeds = {str(result.seed) for result in collection.results if result.seed is not None}
    datasets = dict.fromkeys(group.dataset for group in collection.groups)
    facts = [_count(runs, "run"), _count(len(seeds), "seed"), ", ".join(datasets)]
    for sweep in collection.sweeps:
        facts += [f"after {sweep.paper}"] if sweep.paper else []
        facts += {"paper": ["the paper's recipe"], "shortened": ["a shortened recipe"]}.get(
            sweep.recipe, []
        )
    return " · ".join(dict.fromkeys(facts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _finding(findings: Findings) -> Markup:
    paragraphs = [tag("p", _with_whole_names(line)) for line in findings.headlines]
    paragraphs += [tag("p", _with_whole_names(line), class_="detail") for line in findings.details]
    paragraphs += [tag("p", line, class_="caveat") for line in findings.caveats]
    return tag("section", *paragraphs, class_="finding", id="finding", aria_label="Finding")


def _with_whole_names(line: str) -> Markup:
    """Keeps "plain-56's" on one line; a name too long for a phone may break."""
    words = [
        tag("span", word, class_="name") if re.search(r"\w-\d", word) and len(word) < 28 else word
        for word in line.split()
    ]
    return join(words, " ")


def _warning(problems: Sequence[str]) -> Markup:
    if not problems:
        return Markup("")
    heading = tag("h2", "Damaged files; everything that could be read is shown")
    return tag("section", heading, tag("ul", *(tag("li", line) for line in problems)),
               class_="warning", id="problems")  # fmt: skip


def _figure(rows: Sequence[Sequence[Markup]], caption: str) -> Markup:
    if not rows:
        return tag("p", "No run has a curve to draw yet.", class_="note")
    strips = [tag("div", *row, class_=f"panels of-{len(row)}") for row in rows]
    return tag("figure", *strips, tag("figcaption", caption), id="figure")


def _table(table: Table, heading: bool = False) -> Markup:
    """The table in a box that scrolls sideways by itself where the screen is narrow."""

    def cell(name: str, column: str, text: str, **attributes: str) -> Markup:
        kinds = ["numeric"] if column in table.numeric else []
        kinds += ["words"] if column == "Reading" or len(text) > LONG else []
        if column == "Status":
            kinds += [f"status-{kind}" for kind in _KINDS if text.startswith(kind)]
            kinds += ["status-partial"] if text.startswith("unfinished") else []
        return tag(name, text, class_=" ".join(kinds) or None, **attributes)

    head = tag("tr", *(cell("th", column, column, scope="col") for column in table.columns))
    first, *others = table.columns
    rows = [
        tag("tr", cell("th", first, row[0], scope="row"),
            *(cell("td", *pair) for pair in zip(others, row[1:], strict=True)))
        for row in table.rows
    ]  # fmt: skip
    whole = tag("table", tag("thead", head), tag("tbody", *rows))
    box = tag("div", whole, class_="scroll", role="region", tabindex="0", aria_label=table.caption)
    notes = [tag("p", note, class_="note") for note in table.notes]
    return join([tag("h3", table.caption) if heading else "", box, *notes])


LONG = 28  # characters, beyond which a cell may break its line
_KINDS = ("diverged", "failed", "missing")


def _caption(findings: Findings) -> str:
    """The contrast first, wherever there is one."""
    contrasts = [describe_contrast(contrast) for arm in findings.arms for contrast in arm.contrasts]
    return " ".join([*contrasts, CURVES]) + (DEPTHS if _compared(findings) else "")


def _compared(findings: Findings) -> bool:
    return any(arm.comparisons for arm in findings.arms)


def _selections(findings: Findings) -> Iterable[Markup]:
    if findings.selections:
        table = selection_table(findings.selections)
        yield from (tag("h2", table.caption), _table(table))


def _degradation(findings: Findings) -> Iterable[Markup]:
    if not _compared(findings):
        return []
    table = comparisons_table(findings.arms)
    return [tag("h2", table.caption), _table(table), tag("p", INTERVALS, class_="note")]


def _analysis(analysis: Analysis) -> Markup:
    paragraphs = [tag("p", text) for text in analysis.paragraphs]
    picture = tag("img", src=analysis.picture, alt=analysis.name) if analysis.picture else ""
    return tag("section", tag("h2", analysis.name), *paragraphs, picture, class_="analysis")


def _failures(results: Sequence[Result]) -> Iterable[Markup]:
    for result in results:
        path = result.run.path / "error.txt"
        if result.status == "failed" and path.is_file():
            traceback = path.read_text(encoding="utf-8", errors="replace")
            yield tag("details", tag("summary", f"Why {result.name} failed"), tag("pre", traceback))


def _making(collection: Collection) -> Iterable[Markup]:
    """How the runs were made and how to make them again."""
    results = collection.results
    told = [result.run.info for result in results]
    versions = _distinct(_versions(info.get("versions")) for info in told)
    devices = _distinct(naming.as_text(info.get("devices") or "") for info in told)
    processors = _distinct(naming.as_text(info.get("processor") or "") for info in told)
    commits = _distinct(_commit(naming.as_text(info.get("commit") or "")) for info in told)
    varied = naming.differing(result.settings for result in results if result.has_config)
    facts = [
        ("Command", [sweep.command for sweep in collection.sweeps if sweep.command]),
        ("Devices", devices),
        ("Processor", processors),
        ("Versions", versions),
        ("Commit", commits),
        ("What varies", [_values(results, key) for key in varied]),
    ]
    terms = [
        join([tag("dt", name), tag("dd", join(map(escape, lines), Markup("<br>")))])
        for name, lines in facts
        if lines
    ]
    yield tag("h2", "How it was made")
    yield tag("dl", *terms)
    commands = [f"{r.run.info['command']}" for r in results if r.run.info.get("command")]
    if commands:
        summary = tag("summary", "The command of every run")
        yield tag("details", summary, tag("pre", "\n".join(commands)))


def _distinct(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, lines)))


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
