"""What was found, in plain sentences that are computed from the runs."""

import dataclasses
import math
from collections.abc import Sequence

from resnet_jax.reporting.load import Collection
from resnet_jax.reporting.results import Group
from resnet_jax.reporting.statistics import Difference, summarize
from resnet_jax.reporting.verdicts import Comparison, Verdict, compare_families, percent

LEADS = {
    Verdict.OPTIMISATION: "Degradation: ",
    Verdict.DIVERGED: "Degradation: ",
    Verdict.OVERFITTING: "Overfitting, not degradation: ",
    Verdict.NONE: "No degradation: ",
    Verdict.SMALL: "No degradation seen: ",
    Verdict.NOISE: "Undecided: ",
    Verdict.UNDECIDED: "Undecided: ",
}


@dataclasses.dataclass(frozen=True)
class Findings:
    """`headlines` has a statement for each data set and setting; `caveats` limit them all."""

    headlines: list[str]
    comparisons: list[Comparison]
    caveats: list[str]

    @property
    def text(self) -> str:
        return "\n".join([*self.headlines, *self.caveats])


def find(collection: Collection) -> Findings:
    """What the runs say of degradation, for each data set and setting, and what limits it."""
    arms: dict[tuple[str, str], list[Group]] = {}
    for group in collection.groups:
        arms.setdefault((group.dataset, group.setting), []).append(group)
    comparisons = {arm: compare_families(groups) for arm, groups in arms.items()}
    several = len(arms) > 1
    headlines = [
        (_arm(*arm) if several else "") + headline(found, arms[arm])
        for arm, found in comparisons.items()
        if found
    ]
    if not headlines:
        datasets = dict.fromkeys(group.dataset for group in collection.groups)
        headlines = [
            _best([group for group in collection.groups if group.dataset == dataset])
            for dataset in datasets
        ]
    flat = [comparison for found in comparisons.values() for comparison in found]
    return Findings(headlines, flat, _caveats(collection))


def _arm(dataset: str, setting: str) -> str:
    return f"{dataset}, {setting} – " if setting else f"{dataset} – "


def headline(comparisons: Sequence[Comparison], groups: Sequence[Group]) -> str:
    """The statement on one data set and setting: the first family, its twins, what it means.

    Args:
      comparisons: of these groups; at least one.
      groups: all nets of the data set and setting.
    """
    first, *others = comparisons
    twins = [
        c
        for c in others
        if (c.shallow.depth, c.deep.depth) == (first.shallow.depth, first.deep.depth)
    ]
    clauses = [_clause(first), *(_twin_clause(twin) for twin in twins)]
    sentences = ["; ".join(clauses) + ".", _meaning(first)]
    sentences += [_of_twin(twin) for twin in twins if twin.verdict in _DEGRADED]
    sentences += [
        f"{_clause(other)}."  # A net deeper than its twins, or of a family without twins.
        for other in others
        if other not in twins and other.verdict is Verdict.OPTIMISATION
    ]
    sentences += _divergences(groups)
    return LEADS[first.verdict] + " ".join(sentences)


_DEGRADED = (Verdict.OPTIMISATION, Verdict.DIVERGED)


def _clause(comparison: Comparison) -> str:
    deep, shallow = comparison.deep.model, comparison.shallow.model
    if math.isnan(comparison.train.value):
        return f"{deep} and {shallow} do not both have a training error to compare"
    level = summarize(percent(comparison.deep.values("train_error"))).mean
    distance = _distance(comparison.train)
    return (
        f"{deep}'s training error is {level:.1f}%, {distance} {shallow}'s "
        f"({describe_interval(comparison)})"
    )


def _twin_clause(comparison: Comparison) -> str:
    deep, shallow = comparison.deep.model, comparison.shallow.model
    if math.isnan(comparison.train.value):
        return f"its {comparison.family} twin {deep} has no training error to compare"
    level = summarize(percent(comparison.deep.values("train_error"))).mean
    distance = _distance(comparison.train)
    return f"its {comparison.family} twin {deep} is at {level:.1f}%, {distance} {shallow}'s"


def _distance(difference: Difference) -> str:
    size = f"{abs(difference.value):.1f} points"
    if size == "0.0 points":
        return f"{size} from"
    return f"{size} {'above' if difference.value > 0 else 'below'}"


def describe_interval(comparison: Comparison) -> str:
    """E.g. "95% interval 87.0 to 89.8, Welch's t, 5 seeds a side"."""
    seeds, train = comparison.describe_seeds(), comparison.train
    if not train.has_interval:
        return f"{seeds}: no interval can be given"
    return f"95% interval {train.low:.1f} to {train.high:.1f}, Welch's t, {seeds}"


def _meaning(comparison: Comparison) -> str:
    test = f"{abs(comparison.test.value):.1f} points"
    return {
        Verdict.OPTIMISATION: "Higher training error: an optimisation effect, not overfitting.",
        Verdict.DIVERGED: f"{_diverged(comparison)}: an optimisation effect.",
        Verdict.OVERFITTING: f"Only the test error is higher, by {test}: overfitting.",
        Verdict.NONE: "The deeper net is no worse.",
        Verdict.SMALL: f"No difference that {comparison.describe_seeds()} can show.",
        Verdict.NOISE: "These seeds are too few to tell.",
        Verdict.UNDECIDED: "Nothing can be said yet.",
    }[comparison.verdict]


def _diverged(comparison: Comparison) -> str:
    share = "Most" if comparison.deep.completed else "All"
    return f"{share} of {comparison.deep.model}'s runs diverged"


def _of_twin(twin: Comparison) -> str:
    if twin.verdict is Verdict.DIVERGED:
        return f"{_diverged(twin)}."
    return f"The {twin.family} net degrades too, by {twin.train.value:.1f} points."


def _divergences(groups: Sequence[Group]) -> list[str]:
    return [
        f"{group.model} diverged in {count_diverged(group)}"
        + (" (left out of the means)." if group.completed else ".")
        for group in groups
        if group.diverged
    ]


def count_diverged(group: Group) -> str:
    """E.g. "2 of 5 seeds"."""
    total = len(group.results)
    return f"{len(group.diverged)} of {total} seed{'s' * (total != 1)}"


def _best(groups: Sequence[Group]) -> str:
    """Where no family has two depths: the range of test errors, or that there is none."""
    dataset = groups[0].dataset
    level = {
        group.label: summarize(percent(values)).mean
        for group in groups
        if (values := group.values("test_error"))
    }
    if not level:
        return f"{dataset}: no completed run has a test error yet."
    low, high = min(level, key=level.get), max(level, key=level.get)
    text = f"{dataset}: {low} has a test error of {level[low]:.1f}%"
    if len(level) > 1:
        text = f"{dataset}: of {len(level)} nets {low} has the lowest test error, {level[low]:.1f}%"
        text += f", and {high} the highest, {level[high]:.1f}%"
    diverged = [f"{g.label} diverged in {count_diverged(g)}" for g in groups if g.diverged]
    statement = "No family has two depths, so nothing is said about degradation."
    return " ".join([f"{text}.", *(f"{line}." for line in diverged), statement])


def _caveats(collection: Collection) -> list[str]:
    waiting = [r for group in collection.groups for r in group.unfinished]
    if not waiting:
        return []
    kinds = {
        "partial": "unfinished",
        "missing": "not started",
        "failed": "failed with a bug",
    }
    counts: dict[str, int] = {}
    for result in waiting:
        kind = kinds.get(result.status, f"in the unknown state {result.status!r}")
        counts[kind] = counts.get(kind, 0) + 1
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    total = len(collection.results)
    return [f"{len(waiting)} of {total} runs did not enter ({listed}): this may change."]
