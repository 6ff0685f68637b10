"""The report's tables: what stands in them."""

import dataclasses
import math
from collections.abc import Sequence

from resnet_jax.reporting import papers, recipe_diff
from resnet_jax.reporting.formatting import NOTHING, duration, fixed, signed, spread
from resnet_jax.reporting.papers import Number
from resnet_jax.reporting.results import Group, Result
from resnet_jax.reporting.selection import Selection
from resnet_jax.reporting.statistics import Difference, summarize
from resnet_jax.reporting.verdicts import Arm, Comparison, Contrast, Effect, percent

ONE_POINT = 1.0
MARK = "*"  # on a difference from the paper that another recipe may explain


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows. `numeric` columns are set right; `notes` stand below."""

    caption: str
    columns: tuple[str, ...]
    numeric: frozenset[str]
    rows: list[tuple[str, ...]]
    notes: list[str] = dataclasses.field(default_factory=list)


def results_table(dataset: str, groups: Sequence[Group]) -> Table:
    """One row a net of `dataset`: final errors over seeds, in percent, and the paper's."""
    numbers = [papers.lookup(group.settings) for group in groups]
    columns = [
        "Net",
        "Depth",
        "Parameters",
        "Seeds",
        "Test error, %",
        "median",
        "Training error, %",
    ]
    if any(numbers):
        columns += ["Paper, %", "Difference"]
    columns.append("Status")
    departures: dict[str, list[str]] = {}
    rows = []
    for group, number in zip(groups, numbers, strict=True):
        row = _figures(group)
        if any(numbers):
            row += _beside_paper(group, number, departures)
        rows.append((*row, describe_status(group)))
    notes = [f"{', '.join(nets)}: {reasons}." for reasons, nets in departures.items()]
    if notes:
        notes.insert(0, f"{MARK} Not the paper's recipe, so not the paper's experiment.")
    if len(departures) == 1 and sum(MARK in cell for row in rows for cell in row) > 1:
        notes = [f"{notes[0]} In all nets so marked: {next(iter(departures))}."]
    words = frozenset({"Net", "Status"})
    return Table(dataset, tuple(columns), frozenset(columns) - words, rows, notes)


def _figures(group: Group) -> list[str]:
    test = summarize(percent(group.values("test_error")))
    train = summarize(percent(group.values("train_error")))
    parameters = {result.final("num_params") for result in group.results}
    sizes = sorted(size for size in parameters if not math.isnan(size))
    return [
        group.label,
        str(group.depth or NOTHING),
        " / ".join(f"{size:,.0f}" for size in sizes) or NOTHING,
        _seeds(group),
        spread(test.mean, test.std),
        fixed(test.median, 2),
        spread(train.mean, train.std),
    ]


def _seeds(group: Group) -> str:
    done, total = group.count_seeds("completed"), group.count_seeds()
    return str(total) if done == total else f"{done} of {total}"


def _beside_paper(
    group: Group, number: Number | None, departures: dict[str, list[str]]
) -> list[str]:
    if number is None:
        return [NOTHING, NOTHING]
    paper = f"{in_paper(number)}, {number.source}"
    if number.error is None:
        return [paper, NOTHING]
    test = summarize(percent(group.values("test_error")))
    ours = test.median if number.statistic == "median" else test.mean
    if math.isnan(ours):
        return [paper, NOTHING]
    reasons = recipe_diff.departures(group.settings, number)
    if not reasons:
        recipes = {result.recipe for result in group.results} - {"paper", None}
        reasons = [f"the sweep calls its recipe {recipe!r}" for recipe in sorted(recipes)]
    if reasons:
        departures.setdefault("; ".join(reasons), []).append(group.label)
    return [paper, f"{signed(ours - number.error)}{MARK if reasons else ''}"]


def in_paper(number: Number) -> str:
    """The paper's error and, where it was several runs, their spread."""
    if number.error is None:
        return f"> {number.above:g}"
    if number.std is None:
        return f"{number.error:.2f}"
    over_runs = spread(number.mean, number.std)
    return over_runs if number.mean == number.error else f"{number.error:.2f} ({over_runs})"


def describe_status(group: Group) -> str:
    """E.g. "completed", or "1 diverged, 2 missing" of the runs that are not."""
    counts: dict[str, int] = {}
    for result in group.results:
        counts[result.status] = counts.get(result.status, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    counts.pop("completed", None)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def comparisons_table(arms: Sequence[Arm]) -> Table:
    """The contrast of each data set and setting first, then a row for each family."""
    columns = (
        "What", "Over", "Training error, points", "Test error, points", "Detectable",
        "Seeds for 1 point", "Reading",
    )  # fmt: skip
    several = len({arm.dataset for arm in arms if arm.comparisons}) > 1
    rows = []
    for arm in arms:
        where = ", ".join(filter(None, [several and arm.dataset, arm.setting]))
        for part in arm.contrasts:
            layers = f"{part.family.shallow.depth} to {part.family.deep.depth} layers"
            what = f"{part.family.family} less {part.twin.family}"
            reading = words_for(part.effects)
            rows.append(_judged(part, where, what, f"{layers} ({part.seeds})", reading))
        for part in arm.comparisons:
            over = f"{part.deep.name} − {part.shallow.name} ({part.describe_seeds()})"
            reading = f"{part.verdict.value}: {words_for(part.effects)}"
            if part.diverged:
                reading = f"{part.verdict.value}: the deeper network diverges"
            rows.append(_judged(part, where, part.family, over, reading))
    numeric = frozenset(columns[2:6])
    return Table("Degradation and contrast", columns, numeric, rows)


def words_for(effects: tuple[Effect, Effect]) -> str:
    train, test = (effect.value for effect in effects)
    return f"training {train}, test {test}"


def _judged(
    part: Comparison | Contrast, where: str, what: str, over: str, reading: str
) -> tuple[str, ...]:
    differences = (part.train, part.test)
    detectable = " / ".join(fixed(d.detectable(), 1) for d in differences)
    seeds = " / ".join(f"{d.seeds_for(ONE_POINT) or NOTHING}" for d in differences)
    what = f"{what}, {where}" if where else what
    return (what, over, *map(_interval, differences), detectable, seeds, reading)


def selection_table(selections: Sequence[Selection]) -> Table:
    """Every setting of the optimiser that was tried, the chosen one of each network first."""
    columns = ("Net", "Setting", "Seeds", "Error to choose by, %", "Test error, %", "Chosen")
    rows = []
    for selection in selections:
        for group, error in zip(selection.candidates, selection.errors, strict=True):
            test = summarize(percent(group.values("test_error")))
            diverged = "diverged" if math.isinf(error) else fixed(error, 2)
            rows.append(
                (
                    group.label, group.chosen, str(group.count_seeds("completed")), diverged,
                    spread(test.mean, test.std), "best" if group is selection.best else NOTHING,
                )
            )  # fmt: skip
    criteria = " or ".join(dict.fromkeys(selection.criterion for selection in selections))
    note = (
        f"Chosen by mean {criteria} over the seeds that all settings of a network share; the test "
        "error is shown and chose nothing. The seeds that chose are counted in the results, too."
    )
    caption = "Each network at its best setting of the optimiser"
    return Table(caption, columns, frozenset(columns[2:5]), rows, [note])


def runs_table(results: Sequence[Result]) -> Table:
    """One row a run: how far it came, its final errors and what it took."""
    columns = (
        "Run",
        "Seed",
        "Status",
        "Steps",
        "Training error, %",
        "Test error, %",
        "Images/s",
        "Wall time",
    )
    rows = [
        (
            result.name,
            NOTHING if result.seed is None else str(result.seed),
            describe_run(result),
            fixed(result.steps, 0),
            fixed(100 * result.final("train_error"), 2),
            fixed(100 * result.final("test_error"), 2),
            fixed(result.final("images_per_second"), 0),
            duration(result.final("wall_seconds")),
        )
        for result in results
    ]
    return Table("Runs", columns, frozenset(columns) - {"Run", "Status"}, rows)


def describe_run(result: Result) -> str:
    if result.status == "partial":
        return "unfinished"
    return f"{result.status}{', damaged files' if result.run.problems else ''}"


def _interval(difference: Difference) -> str:
    if math.isnan(difference.value):
        return NOTHING
    if not difference.has_interval:
        return f"{signed(difference.value)} (no interval)"
    return f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"
