"""What was found, in plain sentences that are computed from the runs."""

import collections
import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from resnet_jax.reporting import naming
from resnet_jax.reporting.load import FINISHED, STARTED, Collection, Group
from resnet_jax.reporting.selection import Selection, select_best
from resnet_jax.reporting.statistics import CONFIDENCE, POWER, Difference, pooled
from resnet_jax.reporting.tables import seeds_for_one_point, signed
from resnet_jax.reporting.verdicts import (
    FIELDS,
    ONE_POINT,
    Arm,
    Comparison,
    Contrast,
    Effect,
    Trend,
    Verdict,
    detectable,
    judge_all,
    packaged_spreads,
)

_LISTED = 6  # networks in one sentence
ONE_SEED = "One seed has no spread: neither error is decided."


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the runs say.

    Attributes:
      headlines: the contrast of each data set and setting, or its first statement without one.
      details: the further statements.
      caveats: what limits them all.
      arms: what the statements are computed from.
      selections: networks of which the best of several optimiser settings is compared.
      groups: those that are compared, one for each network and setting.
    """

    headlines: list[str]
    details: list[str]
    caveats: list[str]
    arms: list[Arm]
    selections: list[Selection]
    groups: list[Group]

    @property
    def text(self) -> str:
        return "\n".join([*self.headlines, *self.details, *self.caveats])

    @property
    def has_reservations(self) -> bool:
        """Whether a caveat is of these runs, not of how all intervals are to be read."""
        return set(self.caveats) > set(_adjustment(self.arms))


def find(collection: Collection, table: pd.DataFrame | None = None) -> Findings:
    """What the runs say of degradation, for each data set and setting, and what limits it.

    Args:
      collection: all runs.
      table: spreads that stand in for those of single seeds; by default the packaged ones.
    """
    groups, selections = select_best(collection.groups)
    arms = judge_all(groups, packaged_spreads() if table is None else table)
    several = sum(bool(arm.comparisons) for arm in arms) > 1
    headlines, details = [], []
    for arm in arms:
        if not arm.comparisons:
            continue
        first, *others = [*_statements(arm), *_divergences(arm.groups)]
        prefix = _prefix(arm) if several else ""
        headlines.append(prefix + first)
        details += [prefix + line for line in others]
    if not headlines:
        datasets = dict.fromkeys(group.dataset for group in groups)
        headlines = [_best([g for g in groups if g.dataset == dataset]) for dataset in datasets]
    details += [_selected(selections)] if selections else []
    caveats = [*_adjustment(arms), *_unclear(arms), *_rounding(groups), *_versions(groups)]
    caveats += [*collection.notes, *_caveats(collection)]
    return Findings(headlines, details, caveats, arms, selections, groups)


def _prefix(arm: Arm) -> str:
    return f"{arm.dataset}, {arm.setting} – " if arm.setting else f"{arm.dataset} – "


def _statements(arm: Arm) -> list[str]:
    """Contrasts first, then trends, then each family by itself, then what the seeds can show."""
    lines = list(map(describe_contrast, arm.contrasts))
    lines += list(map(describe_trend, arm.trends))
    lines += list(map(describe_comparison, arm.comparisons))
    judged: list[Contrast | Comparison] = [*arm.contrasts, *arm.comparisons]
    return lines + [line for part in judged[:1] if (line := describe_power(part))]


def describe_contrast(contrast: Contrast) -> str:
    """The degradation of the plain family less that of its twin, in training and in test error."""
    family, twin = contrast.family, contrast.twin
    axes = " and ".join(dict.fromkeys(filter(None, (twin.shallow.axes, twin.deep.axes))))
    lead = _contrast_lead(contrast)
    if math.isnan(contrast.train.value):
        return f"{lead}: a network has no completed run."
    parts = [
        f"{abs(difference.value):.1f} points {'less' if difference.value < 0 else 'more'} {name}"
        f"{_in_brackets(difference)}"
        for difference, name in _named(contrast)
        if not math.isnan(difference.value)
    ]
    train, test = map(_beside_zero, contrast.effects)
    judged = f"The contrast is {train} in training and {test} in test."
    if train == test:
        judged = f"The contrast is {train} in training and test."
    if contrast.effects == (Effect.ONE_SEED, Effect.ONE_SEED):
        judged = ONE_SEED
    return (
        f"{lead}: going from {family.shallow.depth} to {family.deep.depth} layers brings plain "
        f"networks {' and '.join(parts)} than {twin.family} ones{f' with {axes}' * bool(axes)}; "
        f"{contrast.seeds}"
        f"{_borrowed(contrast.borrowed)}. {judged}"
    )


def _beside_zero(effect: Effect) -> str:
    words = {Effect.HIGHER: "above zero", Effect.LOWER: "below zero"}
    return words.get(effect, effect.value.replace("the same", "zero"))


def _contrast_lead(contrast: Contrast) -> str:
    twin = contrast.twin.family
    effect = contrast.effects[0]
    degrades, twin_degrades = (
        c.effects[0] is Effect.HIGHER or c.diverged for c in (contrast.family, contrast.twin)
    )
    if effect is Effect.HIGHER and degrades:
        spared = contrast.twin.effects[0] in (Effect.SAME, Effect.LOWER)
        if spared and not twin_degrades:
            return f"Plain networks degrade and {twin} ones do not"
        return f"Plain networks degrade, and more than {twin} ones"
    return {
        Effect.HIGHER: f"Depth favours {twin} networks over plain ones",
        Effect.LOWER: f"Depth favours plain networks over {twin} ones",
        Effect.SAME: f"Depth treats plain and {twin} networks alike",
        Effect.UNDECIDED: f"Undecided whether depth favours {twin} networks over plain ones",
        Effect.ONE_SEED: (
            f"Undecided (one seed) whether depth favours {twin} networks over plain ones"
        ),
        Effect.UNKNOWN: f"Plain and {twin} networks cannot be compared",
    }[effect]


def describe_trend(trend: Trend) -> str:
    """Slopes of both families and their difference, with their intervals."""
    parts = []
    for (more, name), slopes in zip(_named(trend), trend.slopes, strict=True):
        ours, theirs = (
            f"{signed(slope.value)} points ({_interval(slope, 2)}) in {family} networks"
            for slope, family in zip(slopes, (trend.family, trend.twin), strict=True)
        )
        by_more = f"a difference of {signed(more.value)} ({_interval(more, 2)})"
        parts.append(f"{name} {ours} and {theirs}, {by_more}")
    seeds = f"{trend.seeds} seed{'s' * (trend.seeds != 1)}"
    return (
        f"Trend per 10 more layers (straight lines through {len(trend.depths)} depths, {seeds}): "
        f"{'; '.join(parts)}."
    )


def describe_comparison(comparison: Comparison) -> str:
    """One family: both errors, their intervals, and what they mean together."""
    lead = f"{comparison.family.capitalize()} networks – {comparison.verdict.value}: "
    if math.isnan(comparison.train.value):
        deep, shallow = comparison.deep.name, comparison.shallow.name
        return (
            f"{lead}{deep} and {shallow} do not both have a training error. {_judged(comparison)}"
        )
    clauses = ", ".join(
        _clause(comparison, field, difference)
        for field, difference in zip(FIELDS, (comparison.train, comparison.test), strict=True)
        if not math.isnan(difference.value)
    )
    seeds = comparison.describe_seeds()
    return f"{lead}{clauses}; {seeds}{_borrowed(comparison.borrowed)}. {_judged(comparison)}"


def _clause(comparison: Comparison, field: str, difference: Difference) -> str:
    deep, shallow = comparison.deep, comparison.shallow
    level = deep.sample(field).mean
    size = f"{abs(difference.value):.1f} points"
    side = "above" if difference.value > 0 else "below"
    where = f"{size} from" if size == "0.0 points" else f"{size} {side}"
    if field == "train_error":
        start = f"{deep.possessive} {FIELDS[field]} is {level:.1f}%, {where} {shallow.possessive}"
    else:
        start = f"its {FIELDS[field]} {level:.1f}%, {where}"
        start += " it" if where.endswith("from") else ""
    return f"{start}{_in_brackets(difference)}"


def _in_brackets(difference: Difference) -> str:
    return "" if difference.low is None else f" ({_interval(difference)})"


def _interval(difference: Difference, digits: int = 1) -> str:
    """E.g. "95% interval +87.0 to +89.8"; `_adjustment` says how it is adjusted."""
    low, high = difference.low, difference.high
    if low is None or high is None:
        return "no interval"
    return f"{CONFIDENCE:.0%} interval {signed(low, digits)} to {signed(high, digits)}"


def _borrowed(sources: Sequence[str]) -> str:
    return f", with the spread of archived runs ({'; '.join(sources)})" if sources else ""


def _judged(comparison: Comparison) -> str:
    """Training and test error, each by itself, and what they mean together."""
    effects = comparison.effects
    if comparison.diverged:
        return "The deeper network diverges more often: an optimisation effect."
    if math.isnan(comparison.train.value):
        return "Nothing can be said yet."
    if effects == (Effect.ONE_SEED, Effect.ONE_SEED):
        return ONE_SEED
    train, test = (effect.value for effect in effects)
    meaning = {
        Verdict.DEGRADATION: "an optimisation effect, not overfitting",
        Verdict.OVERFITTING: "it fits no worse but generalises worse",
        Verdict.NONE: "no worse in either",
        Verdict.OPPOSITE: "it fits worse and generalises better",
    }.get(comparison.verdict, "neither degradation nor its absence is shown")
    return f"Training error {train}, test error {test}: {meaning}."


def describe_power(judged: Contrast | Comparison) -> str:
    """What the given seeds could have found, and how many would find one point.

    Nothing where their spread is hardly known.
    """
    differences = [judged.train, judged.test]
    if not all(difference.can_plan for difference in differences):
        return ""
    found = [f"{detectable(d):.1f} points of {name}" for d, name in _named(judged)]
    what = "contrast" if isinstance(judged, Contrast) else "difference"
    counts = list(map(seeds_for_one_point, differences))
    words = f"{counts[0]} seeds of each network"
    if counts[0] != counts[1]:
        words += f" in training error and {counts[1]} in test error"
    return (
        f"Power: with probability {POWER:g} these seeds detect a {what} of {' and '.join(found)}; "
        f"detecting {ONE_POINT:g} point takes {words}."
    )


def _named(judged: Contrast | Comparison | Trend) -> list[tuple[Difference, str]]:
    return list(zip((judged.train, judged.test), FIELDS.values(), strict=True))


def _divergences(groups: Sequence[Group]) -> list[str]:
    return [
        f"{group.name} diverged in {count_diverged(group)}"
        + (" (left out of the means)." if group.completed else ".")
        for group in groups
        if group.diverged
    ]


def count_diverged(group: Group) -> str:
    """E.g. "2 of 5 seeds", of those that have started."""
    total = group.count_seeds(*STARTED)
    return f"{group.count_seeds('diverged')} of {total} seed{'s' * (total != 1)}"


def _selected(selections: Sequence[Selection]) -> str:
    """How each network's optimiser setting was chosen, and which waits."""
    listed = lambda some: ", ".join(f"{s.best.label} {s.best.chosen}" for s in some)
    chosen = [selection for selection in selections if selection.seeds]
    others = [s for s in selections if not s.seeds and s.best.completed]
    criteria = " or ".join(dict.fromkeys(selection.criterion for selection in chosen))
    counts = sorted({selection.seeds for selection in chosen})
    seeds = f"{'–'.join(map(str, counts))} seed{'s' * (counts != [1])}"
    sentences = []
    if chosen:
        sentences.append(
            f"Each network is shown at the best of the optimiser's settings that were tried, by "
            f"{criteria} over the {seeds} that all settings share, never by test error"
            + (f": {listed(chosen)}." if len(chosen) <= _LISTED else "; a table has them all.")
        )
    if others:
        sentences.append(
            "Where a network's settings share no seed, none could be chosen; shown at the setting "
            f"with the most seeds: {listed(others)}."
        )
    text = " ".join(sentences)
    waiting = [f"{s.best.label} at {', '.join(s.waiting)}" for s in selections if s.waiting]
    text += f" Not finished, so not judged: {'; '.join(waiting)}." if waiting else ""
    tried: dict[str, dict[str, None]] = collections.defaultdict(dict)  # in order, by data set
    for group in (group for s in selections for group in s.candidates):
        tried[group.dataset][group.chosen] = None
    missing = [
        f"{s.best.label} without {', '.join(left)}"
        for s in selections
        if (left := [n for n in tried[s.best.dataset] if n not in {g.chosen for g in s.candidates}])
    ]
    return text + (f" Not all had the same choice: {'; '.join(missing)}." if missing else "")


def _best(groups: Sequence[Group]) -> str:
    """Where no family has two depths: the range of test errors, or that there is none."""
    dataset = groups[0].dataset
    level = {
        group.label: group.sample("test_error").mean
        for group in groups
        if group.values("test_error")
    }
    if not level:
        return f"{dataset}: no completed run has a test error yet."
    low, high = min(level, key=level.__getitem__), max(level, key=level.__getitem__)
    text = f"{dataset}: {low} has a test error of {level[low]:.1f}%"
    if len(level) > 1:
        text = (
            f"{dataset}: of {len(level)} networks {low} has the lowest test error, "
            f"{level[low]:.1f}%, and {high} the highest, {level[high]:.1f}%"
        )
    diverged = [f"{g.label} diverged in {count_diverged(g)}" for g in groups if g.diverged]
    statement = "No family has two depths, so nothing is said about degradation."
    return " ".join([f"{text}.", *(f"{line}." for line in diverged), statement])


def _adjustment(arms: Sequence[Arm]) -> list[str]:
    number = sum(difference.has_interval for arm in arms for difference in arm.differences)
    if number < 2:
        return []
    return [
        f"Intervals exclude zero exactly where Holm's procedure rejects at {1 - CONFIDENCE:.0%} "
        f"over the {number} comparisons made here; they are not simultaneous "
        f"{CONFIDENCE:.0%} intervals."
    ]


def _unclear(arms: Sequence[Arm]) -> list[str]:
    return [
        f"{_prefix(arm)}Not compared, because several networks of one family have one depth: "
        f"{', '.join(group.name for group in arm.unclear)}."
        for arm in arms
        if arm.unclear
    ]


def _rounding(groups: Sequence[Group]) -> list[str]:
    """Spread of runs of one seed and config, which differ by rounding alone, beside the seeds'.

    Nothing is said where `log_every` differs, which decides where calls end, and rows begin.
    """
    lines = []
    for group in groups:
        parts = []
        if naming.differing({"log": r.run.config.get("log_every")} for r in group.completed):
            continue
        for field, name in FIELDS.items():
            replicates = group.replicates(field).values()
            std, freedom = pooled([[100 * value for value in of_seed] for of_seed in replicates])
            if freedom:
                seeds = group.sample(field).std
                beside = "" if math.isnan(seeds) else f" (over seeds: {seeds:.2f})"
                parts.append(f"{std:.2f} points of {name}{beside}")
        if parts:
            lines.append(
                f"{group.name} was run more than once with the same seed. Rounding alone gives a "
                f"standard deviation of {' and '.join(parts)}. Such runs count as one seed."
            )
    return lines


def _versions(groups: Sequence[Group]) -> list[str]:
    """Networks whose seeds, or which together, were not trained by one version of the code."""
    by_commits: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        commits = tuple(dict.fromkeys(c for result in group.completed for c in result.commits))
        by_commits.setdefault(commits, []).append(group.name)
    networks = {commits: names for commits, names in by_commits.items() if len(commits) > 1}
    lines = [
        f"The runs of {', '.join(names)} were trained by different versions of the code (commits "
        f"{', '.join(commits)}), which may add to a spread over seeds or hide it."
        for commits, names in networks.items()
    ]
    by_commits.pop((), None)
    if len(by_commits) > 1:
        of_each = [f"{', '.join(names)} ({', '.join(c)})" for c, names in by_commits.items()]
        lines.append(
            "Not all networks were trained by one version of the code, so a difference between "
            f"them may be due to that: {'; '.join(of_each)}."
        )
    return lines


def _caveats(collection: Collection) -> list[str]:
    waiting = [r for g in collection.groups for r in g.results if r.status not in FINISHED]
    if not waiting:
        return []
    kinds = {"partial": "unfinished", "missing": "not started", "failed": "failed with a bug"}
    kinds |= {"damaged": "without a readable config"}
    counts = collections.Counter(
        kinds.get(r.status, f"in the unknown state {r.status!r}") for r in waiting
    )
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    among = f"{len(waiting)} of {len(collection.results)} runs"
    return [f"Left out, so this may change: {among} ({listed})."]
