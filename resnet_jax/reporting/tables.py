"""The report's tables: what stands in them, and how they are written."""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import pandas as pd

from resnet_jax.reporting import naming, papers
from resnet_jax.reporting.load import Collection, Group, Result
from resnet_jax.reporting.papers import Number
from resnet_jax.reporting.selection import Selection
from resnet_jax.reporting.statistics import MOST_SEEDS, Difference
from resnet_jax.reporting.verdicts import (
    ONE_POINT,
    Arm,
    Comparison,
    Contrast,
    Effect,
    detectable,
)

NOTHING = "–"
MARK = "*"  # on a difference from the paper that another recipe may explain


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows, at least one, by column. All but `words` is set right; `notes` stand below."""

    caption: str
    rows: list[dict[str, str]]
    words: frozenset[str]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0])

    def to_markdown(self) -> str:
        """A Markdown table that no name from a config can break."""
        line = lambda cells: f"| {' | '.join(cells)} |\n"
        rules = ["---" if column in self.words else "---:" for column in self.columns]
        body = "".join(line(map(escape_markdown, row.values())) for row in self.rows)
        notes = "".join(f"\n{escape_markdown(note)}\n" for note in self.notes)
        return line(self.columns) + line(rules) + body + notes


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, HTML, link or cell border from a name."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)
    return text.replace("://", ":\u200b//")  # GitHub links bare addresses.


def escape_csv_formula(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# Numbers as tables and sentences write them.


def fixed(value: float, digits: int) -> str:
    """With thousands' commas; a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{value:,.{digits}f}"


def spread(mean: float, std: float) -> str:
    """Mean ± std, or the mean alone of a single seed."""
    return fixed(mean, 2) + ("" if math.isnan(std) else f" ± {std:.2f}")


def over_seeds(group: Group, field: str) -> str:
    """A final error in percent: mean ± std over seeds."""
    sample = group.sample(field)
    return spread(sample.mean, sample.std)


def signed(value: float, digits: int = 2) -> str:
    """Always with a sign: "+0.12", "−0.12"; but "0.00"."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def completed_seeds(group: Group) -> str:
    """How many seeds the figures are of: "5", or "2 of 5" where not all have completed."""
    done, total = group.count_seeds("completed"), group.count_seeds()
    return str(total) if done == total else f"{done} of {total}"


def duration(seconds: float) -> str:
    """E.g. "45 s", "3 min 20 s", "2 h 05 min"."""
    if math.isnan(seconds):
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


# Final errors, by network.


def results_tables(groups: Sequence[Group]) -> list[Table]:
    """A table for each data set, in the order of the groups."""
    by_dataset: dict[str, list[Group]] = {}
    for group in groups:
        by_dataset.setdefault(group.dataset, []).append(group)
    return [results_table(dataset, own) for dataset, own in by_dataset.items()]


def results_table(dataset: str, groups: Sequence[Group]) -> Table:
    """One row a network of `dataset`: final errors over seeds, in percent, and the paper's."""
    numbers = [None if group.is_damaged else papers.lookup(group.settings) for group in groups]
    departures: dict[str, list[str]] = {}
    rows = []
    for group, number in zip(groups, numbers, strict=True):
        parameters = {result.final("num_params") for result in group.results}
        sizes = sorted(size for size in parameters if not math.isnan(size))
        row = {
            "Network": group.label,
            "Depth": str(group.depth or NOTHING),
            "Parameters": " / ".join(f"{size:,.0f}" for size in sizes) or NOTHING,
            "Seeds": completed_seeds(group),
            "Test error, %": over_seeds(group, "test_error"),
            "median": fixed(group.sample("test_error").median, 2),
            "Training error, %": over_seeds(group, "train_error"),
        }
        if any(numbers):
            row |= _beside_paper(group, number, departures)
        rows.append(row | {"Status": describe_status(group)})
    notes = [f"{', '.join(networks)}: {reasons}." for reasons, networks in departures.items()]
    if notes:
        notes.insert(0, f"{MARK} Not the paper's recipe, so not the paper's experiment.")
    if len(departures) == 1 and len(next(iter(departures.values()))) > 1:
        notes = [f"{notes[0]} In all networks so marked: {next(iter(departures))}."]
    return Table(dataset, rows, frozenset({"Network", "Status"}), notes)


def _beside_paper(
    group: Group, number: Number | None, departures: dict[str, list[str]]
) -> dict[str, str]:
    paper, difference = NOTHING, NOTHING
    if number is not None:
        paper = f"{in_paper(number)}, {number.source}"
        test = group.sample("test_error")
        ours = test.median if number.statistic == "median" else test.mean
        if number.error is not None and not math.isnan(ours):
            reasons = papers.recipe_diff(group.settings, number)
            if not reasons:
                recipes = {r.recipe for r in group.results if r.recipe is not None} - {"paper"}
                reasons = [f"the sweep calls its recipe {recipe!r}" for recipe in sorted(recipes)]
            if reasons:
                departures.setdefault("; ".join(reasons), []).append(group.label)
            difference = f"{signed(ours - number.error)}{MARK if reasons else ''}"
    return {"Paper, %": paper, "Difference": difference}


def in_paper(number: Number) -> str:
    """The paper's error and, where it was several runs, their spread."""
    if number.error is None:
        return f"> {number.above:g}"
    if number.mean is None or number.std is None:
        return f"{number.error:.2f}"
    over_runs = spread(number.mean, number.std)
    return over_runs if number.mean == number.error else f"{number.error:.2f} ({over_runs})"


def describe_status(group: Group) -> str:
    """E.g. "completed", or "1 diverged, 2 missing" of the runs that are not."""
    counts = collections.Counter(result.status for result in group.results)
    if len(counts) == 1:
        return next(iter(counts))
    counts.pop("completed", None)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


# What was judged.


def judged_tables(selections: Sequence[Selection], arms: Sequence[Arm]) -> list[Table]:
    """How settings were chosen, and what was compared, as far as there is any of it."""
    tables = [selection_table(selections)] if selections else []
    return tables + ([comparisons_table(arms)] if any(arm.comparisons for arm in arms) else [])


def comparisons_table(arms: Sequence[Arm]) -> Table:
    """The contrast of each data set and setting first, then a row for each family."""
    several = len({arm.dataset for arm in arms if arm.comparisons}) > 1
    rows = []
    for arm in arms:
        where = ", ".join(filter(None, [arm.dataset if several else "", arm.setting]))
        for part in arm.contrasts:
            layers = f"{part.family.shallow.depth} to {part.family.deep.depth} layers"
            what = f"{part.family.family} less {part.twin.family}"
            reading = words_for(part.effects)
            rows.append(_judged(part, where, what, f"{layers} ({part.seeds})", reading))
        for pair in arm.comparisons:
            over = f"{pair.deep.name} − {pair.shallow.name} ({pair.describe_seeds()})"
            means = "the deeper network diverges" if pair.diverged else words_for(pair.effects)
            reading = pair.verdict.value
            if pair.diverged or pair.effects != (Effect.ONE_SEED, Effect.ONE_SEED):
                reading += f": {means}"
            rows.append(_judged(pair, where, pair.family, over, reading))
    return Table("Degradation and contrast", rows, frozenset({"What", "Over", "Reading"}))


def words_for(effects: tuple[Effect, Effect]) -> str:
    """E.g. "training higher, test undecided", of the effects on training and test error."""
    train, test = (effect.value for effect in effects)
    both = train == test and effects[0] is not Effect.SAME  # Not: the same as one another.
    return f"training and test {train}" if both else f"training {train}, test {test}"


def _judged(
    part: Comparison | Contrast, where: str, what: str, over: str, reading: str
) -> dict[str, str]:
    differences = (part.train, part.test)
    return {
        "What": f"{what}, {where}" if where else what,
        "Over": over,
        "Training error, points": _interval(part.train),
        "Test error, points": _interval(part.test),
        "Detectable": " / ".join(fixed(detectable(d), 1) for d in differences),
        "Seeds for 1 point": " / ".join(map(seeds_for_one_point, differences)),
        "Reading": reading,
    }


def seeds_for_one_point(difference: Difference) -> str:
    """Of each network; a dash where the spread is hardly known."""
    if not difference.can_plan:
        return NOTHING
    seeds = difference.seeds_for(ONE_POINT)
    return f"more than {MOST_SEEDS:,}" if seeds is None else f"{seeds:,}"


def _interval(difference: Difference) -> str:
    if math.isnan(difference.value):
        return NOTHING
    low, high = difference.low, difference.high
    if low is None or high is None:
        return f"{signed(difference.value)} (no interval)"
    return f"{signed(difference.value)} [{signed(low)}, {signed(high)}]"


def selection_table(selections: Sequence[Selection]) -> Table:
    """Every setting of the optimiser that was tried, the chosen one of each network first."""
    rows = [
        {
            "Network": group.label,
            "Setting": group.chosen,
            "Seeds": str(group.count_seeds("completed")),
            "Error to choose by, %": "diverged" if math.isinf(error) else fixed(error, 2),
            "Test error, %": over_seeds(group, "test_error"),
            "Chosen": shown if group is selection.best else NOTHING,
        }
        for selection in selections
        for shown in ("best" if selection.seeds else "most seeds",)
        for group, error in zip(selection.candidates, selection.errors, strict=True)
    ]
    criteria = " or ".join(dict.fromkeys(selection.criterion for selection in selections))
    note = (
        f"Chosen by mean {criteria} over the seeds that all settings of a network share; the test "
        "error is shown and chose nothing. The seeds that chose are counted in the results, too."
    )
    caption = "Each network at its best setting of the optimiser"
    return Table(caption, rows, frozenset({"Network", "Setting", "Chosen"}), [note])


# Runs.


def runs_table(results: Sequence[Result]) -> Table:
    """One row a run: how far it came, its final errors and what it took."""
    rows = [
        {
            "Run": result.name,
            "Seed": NOTHING if result.seed is None else str(result.seed),
            "Status": describe_run(result),
            "Steps": fixed(result.steps, 0),
            "Training error, %": fixed(100 * result.final("train_error"), 2),
            "Test error, %": fixed(100 * result.final("test_error"), 2),
            "Images/s": fixed(result.final("images_per_second"), 0),
            "Wall time": duration(result.final("wall_seconds")),
        }
        for result in results
    ]
    return Table("Runs", rows, frozenset({"Run", "Status"}))


def describe_run(result: Result) -> str:
    if result.status == "partial":
        return "unfinished"
    damaged = result.run.problems and result.status != "damaged"
    return f"{result.status}{', damaged files' if damaged else ''}"


_CSV_FIGURES = {
    "num_params": ".0f",
    "steps": ".0f",
    "train_loss": ".6f",
    "train_error": ".6f",
    "test_loss": ".6f",
    "test_error": ".6f",
    "images_per_second": ".1f",
    "wall_seconds": ".1f",
}
"""Columns and their format; the two that a machine's speed decides come last."""


def to_csv(collection: Collection) -> str:
    """One line a run, in natural order of names. Errors are fractions, times seconds."""
    settings = {
        id(result): group.setting for group in collection.groups for result in group.results
    }
    word = lambda value: "" if value is None else escape_csv_formula(naming.as_text(value))
    rows = []
    for result in collection.results:
        words = {
            "run": result.name,
            "model": result.model,
            "dataset": result.dataset,
            "seed": result.seed,
            "depth": result.depth,
            "overrides": settings[id(result)],
            "status": result.status,
        }
        figures = {name: result.final(name) for name in _CSV_FIGURES} | {"steps": result.steps}
        rows.append(
            {name: word(value) for name, value in words.items()}
            | {
                name: "" if math.isnan(value) else format(value, _CSV_FIGURES[name])
                for name, value in figures.items()
            }
        )
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
