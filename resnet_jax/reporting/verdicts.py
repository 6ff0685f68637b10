"""What a difference over seeds shows, of training and test error apart, and beside its twin."""

import dataclasses
import enum
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import linregress, norm

from resnet_jax.models import zoo
from resnet_jax.reporting import naming, statistics
from resnet_jax.reporting.load import FINISHED, STARTED, Group
from resnet_jax.reporting.statistics import Difference, Sample
from resnet_jax.runs.recipe import LEGACY_DEFAULTS

SMALLEST_EFFECT = 0.3
"""Percentage points below which a difference of errors is of no interest, however sure it is."""

ENOUGH_SEEDS = 5
"""With fewer, seeds that agree to the digit count as spread by `SMALLEST_EFFECT`."""

ONE_POINT = 1.0

FIELDS = {"train_error": "training error", "test_error": "test error"}


class Effect(enum.Enum):
    """What is known of one difference of errors."""

    HIGHER = "higher"
    LOWER = "lower"
    SAME = f"the same within {SMALLEST_EFFECT:g} points"
    UNDECIDED = "undecided"
    ONE_SEED = "undecided: one seed"
    UNKNOWN = "not measured"


def judge(difference: Difference) -> Effect:
    """Higher or lower: the interval excludes zero, and the difference is of interest.

    The same: the whole interval is within `SMALLEST_EFFECT` of zero. Undecided otherwise, and
    without an interval always.
    """
    if math.isnan(difference.value):
        return Effect.UNKNOWN
    low, high = difference.low, difference.high
    if low is None or high is None:
        return Effect.ONE_SEED
    if low > -SMALLEST_EFFECT and high < SMALLEST_EFFECT:
        return Effect.SAME
    if low > 0 and difference.value >= SMALLEST_EFFECT:
        return Effect.HIGHER
    if high < 0 and difference.value <= -SMALLEST_EFFECT:
        return Effect.LOWER
    return Effect.UNDECIDED


def detectable(difference: Difference) -> float:
    """The difference that as many seeds show, by `judge`, with probability `POWER`; NaN if unknown.

    For it to come out at `SMALLEST_EFFECT` or above as often, it has to be larger than that.
    """
    margin = float(norm.ppf(statistics.POWER)) * (difference.error or 0.0)
    return max(difference.detectable(), SMALLEST_EFFECT + margin)


class Verdict(enum.Enum):
    """What training and test error together say of the deeper network."""

    DEGRADATION = "Degradation"
    OVERFITTING = "Overfitting, not degradation"
    NONE = "No degradation"
    OPPOSITE = "Opposite signs"
    UNDECIDED = "Undecided"
    ONE_SEED = "Undecided, one seed"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Deepest against shallowest network of one family under one setting.

    `train`, `test` and `gap` (test less training error) are deep less shallow, in percentage points
    of final error; `borrowed` says whose spread stands in where a side has one seed.
    """

    shallow: Group
    deep: Group
    train: Difference
    test: Difference
    gap: Difference
    borrowed: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.deep.family

    @property
    def diverged(self) -> bool:
        """Whether the deeper network diverges more often than chance would have it.

        Its unfinished runs may yet complete: those that diverge end first. That does not hold of
        runs that have not started.
        """
        deep, shallow = self.deep, self.shallow
        return statistics.more_often(
            deep.count_seeds("diverged"),
            deep.count_seeds(*STARTED),
            shallow.count_seeds("diverged"),
            shallow.count_seeds(*FINISHED),
        )

    @property
    def effects(self) -> tuple[Effect, Effect]:
        """Of training and test error.

        Runs that diverged are not in the means, which flatters the network that lost more of them:
        nothing is said in its favour.
        """
        return _guarded(self, self.more_diverged)

    @property
    def more_diverged(self) -> float:
        """By how much the deeper network's share of diverged seeds is larger."""
        return self.deep.share_diverged - self.shallow.share_diverged

    @property
    def verdict(self) -> Verdict:
        """What training and test error, each judged by itself, say together."""
        train, test = self.effects
        if self.diverged:
            return Verdict.DEGRADATION
        if train is Effect.HIGHER:
            return Verdict.OPPOSITE if test is Effect.LOWER else Verdict.DEGRADATION
        no_worse = (Effect.LOWER, Effect.SAME)
        if train in no_worse and test is Effect.HIGHER and judge(self.gap) is Effect.HIGHER:
            return Verdict.OVERFITTING
        if train in no_worse and test in no_worse:
            return Verdict.NONE
        if Effect.ONE_SEED in (train, test):
            return Verdict.ONE_SEED
        return Verdict.UNDECIDED

    def describe_seeds(self) -> str:
        """E.g. "5 seeds a side", or "5 and 3 seeds" of the deeper and the shallower network."""
        deep, shallow = (len(group.values("train_error")) for group in (self.deep, self.shallow))
        if deep == shallow:
            return f"{deep} seed{'s' * (deep != 1)} a side"
        return f"{deep} and {shallow} seeds"


@dataclasses.dataclass(frozen=True)
class Contrast:
    """How much more depth costs one family than another: degradation less its twin's.

    `train` and `test` are (deep - shallow of `family`) - (deep - shallow of `twin`), in points;
    `seeds` says over how many seeds, and whether paired.
    """

    family: Comparison
    twin: Comparison
    train: Difference
    test: Difference
    seeds: str
    borrowed: tuple[str, ...] = ()

    @property
    def effects(self) -> tuple[Effect, Effect]:
        """Of training and test error; diverged runs count as in `Comparison.effects`."""
        return _guarded(self, self.family.more_diverged - self.twin.more_diverged)


def _guarded(judged: Comparison | Contrast, flattered: float) -> tuple[Effect, Effect]:
    """The effects, but undecided where the runs that are left out speak against them.

    `flattered` is above zero if they make the difference look smaller, below if larger.
    """
    effects = judge(judged.train), judge(judged.test)
    doubtful = (Effect.LOWER if flattered > 0 else Effect.HIGHER, Effect.SAME)
    if not flattered:
        return effects
    train, test = (Effect.UNDECIDED if effect in doubtful else effect for effect in effects)
    return train, test


@dataclasses.dataclass(frozen=True)
class Trend:
    """Slopes of straight lines, error against depth, over all depths that two families share.

    In percentage points for each 10 layers, seed by seed, for training and for test error: `slopes`
    are those of the `family` and of its `twin`, `train` and `test` the first less the second.
    """

    family: str
    twin: str
    depths: tuple[int, ...]
    seeds: int
    slopes: tuple[tuple[Difference, Difference], tuple[Difference, Difference]]
    train: Difference
    test: Difference


@dataclasses.dataclass(frozen=True)
class Arm:
    """All that is judged of one data set and setting."""

    dataset: str
    setting: str
    groups: list[Group]
    comparisons: list[Comparison]
    contrasts: list[Contrast]
    trends: list[Trend]
    unclear: list[Group] = dataclasses.field(default_factory=list)
    """Networks of one family and depth: none of them is that depth's, so none is compared."""

    @property
    def differences(self) -> list[Difference]:
        """Those of which something is said; of a trend, both slopes and their difference."""
        parts: list[Contrast | Trend | Comparison] = [*self.contrasts, *self.trends]
        parts += self.comparisons
        slopes = [slope for trend in self.trends for pair in trend.slopes for slope in pair]
        return slopes + [difference for part in parts for difference in (part.train, part.test)]


def judge_all(groups: Sequence[Group], table: pd.DataFrame) -> list[Arm]:
    """Comparisons, contrasts and trends of every data set and setting.

    An interval excludes zero where Holm's procedure rejects at 5% over all that the page says.

    Args:
      groups: one for each network of a data set and setting.
      table: spreads for single seeds, see `find_spread`.
    """
    by_arm: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_arm.setdefault((group.dataset, group.setting, _kind(group)), []).append(group)
    arms = [
        _arm(dataset, setting, members, table) for (dataset, setting, _), members in by_arm.items()
    ]
    judged = [difference for arm in arms for difference in arm.differences]
    adjusted = dict(zip(map(id, judged), statistics.holm(judged), strict=True))
    return [_adjust(arm, lambda difference: adjusted[id(difference)]) for arm in arms]


def _kind(group: Group) -> str:
    """Networks of different kinds are no depths of one another.

    v1 compares ImageNet's 18 and 34 layers of basic blocks with 50 and more of bottlenecks; on
    CIFAR each kind of block has depths of its own.
    """
    net = naming.architecture(group.settings)
    if net is None:
        return ""
    return f"{net.stem} {net.block}" if net.stem == "cifar" else net.stem


def _adjust(arm: Arm, adjusted: Callable[[Difference], Difference]) -> Arm:
    adjust = lambda part: dataclasses.replace(
        part, train=adjusted(part.train), test=adjusted(part.test)
    )
    return dataclasses.replace(
        arm,
        comparisons=list(map(adjust, arm.comparisons)),
        contrasts=list(map(adjust, arm.contrasts)),
        trends=[
            dataclasses.replace(
                adjust(trend), slopes=tuple(tuple(map(adjusted, pair)) for pair in trend.slopes)
            )
            for trend in arm.trends
        ],
    )


def _arm(dataset: str, setting: str, groups: list[Group], table: pd.DataFrame) -> Arm:
    of_depth: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        if group.depth is not None and group.having(*FINISHED):
            of_depth.setdefault((group.family, group.depth), []).append(group)
    unclear = [group for several in of_depth.values() if len(several) > 1 for group in several]
    compared = [group for several in of_depth.values() if len(several) == 1 for group in several]
    comparisons = compare_families(compared, table)
    plain = [c for c in comparisons if c.family == "plain"][:1]
    twins = [
        (c, twin)
        for c in plain
        for twin in comparisons
        if twin.family != "plain" and _ends(twin) == _ends(c)
    ]
    contrasts = [_contrast(family, twin, table) for family, twin in twins]
    trends = [
        trend for c, twin in twins if (trend := _trend(compared, c.family, twin.family)) is not None
    ]
    return Arm(dataset, setting, groups, comparisons, contrasts, trends, unclear)


def _ends(comparison: Comparison) -> tuple[int | None, int | None]:
    return comparison.shallow.depth, comparison.deep.depth


def _floored(sample: Sample) -> Sample:
    """Equal errors of a few seeds do not show that there is no spread, only that counts agree."""
    if 1 < sample.count < ENOUGH_SEEDS and sample.std < 1e-9:
        return dataclasses.replace(sample, std=SMALLEST_EFFECT)
    return sample


def _sample(group: Group, field: str, table: pd.DataFrame) -> tuple[Sample, str | None]:
    """Errors in percent over seeds; a single seed's with a measured spread, and whose it is."""
    sample = _floored(group.sample(field))
    spread = find_spread(table, group, field) if sample.count == 1 else None
    if spread is None:
        return sample, None
    source = f"{spread['model']}, {spread['seeds']} seeds"
    freedom = spread["seeds"] - 1
    return dataclasses.replace(sample, std=spread[field], freedom=freedom, source=source), source


def _weighted(
    terms: Sequence[tuple[float, Group]], field: str, table: pd.DataFrame, limit: float
) -> tuple[Difference, list[str]]:
    samples = [(weight, *_sample(group, field, table)) for weight, group in terms]
    difference = statistics.contrast(*((w, sample) for w, sample, _ in samples), limit=limit)
    return difference, [source for *_, source in samples if source and difference.has_interval]


def compare(shallow: Group, deep: Group, table: pd.DataFrame) -> Comparison:
    """The deeper network's errors less the shallower one's.

    `table` has the spreads that stand in for those of single seeds.
    """
    sides = ((1.0, deep), (-1.0, shallow))
    # Two errors in percent differ by 100 at most, whatever few seeds' interval says.
    (train, of_train), (test, of_test) = (
        _weighted(sides, field, table, limit=100) for field in FIELDS
    )
    gap = statistics.welch(deep.gaps, shallow.gaps)
    return Comparison(shallow, deep, train, test, gap, tuple(dict.fromkeys(of_train + of_test)))


def _contrast(family: Comparison, twin: Comparison, table: pd.DataFrame) -> Contrast:
    corners = [
        (1.0, family.deep), (-1.0, family.shallow), (-1.0, twin.deep), (1.0, twin.shallow)
    ]  # fmt: skip
    found, sources = [], []
    for field in FIELDS:
        by_seed = [group.by_seed(field) for _, group in corners]
        seeds = list(by_seed[0])
        is_paired = len(seeds) > 1 and all(set(own) == set(seeds) for own in by_seed)
        if is_paired:  # Twins of one seed start alike and see the same order of the examples.
            values = [
                100 * sum(w * own[s] for (w, _), own in zip(corners, by_seed, strict=True))
                for s in seeds
            ]
            sample = _floored(statistics.summarize(values))
            difference = statistics.contrast((1.0, sample), limit=200)
            found.append((difference, f"{len(seeds)} seeds, paired"))
        else:
            difference, borrowed = _weighted(corners, field, table, limit=200)
            sources += borrowed
            counts = sorted({len(own) for own in by_seed})
            words = "1 seed" if counts == [1] else f"{'–'.join(map(str, counts))} seeds, unpaired"
            found.append((difference, words))
    (train, words), (test, _) = found
    return Contrast(family, twin, train, test, words, tuple(dict.fromkeys(sources)))


def _trend(groups: Sequence[Group], family: str, twin: str) -> Trend | None:
    """None unless the families share more than two depths, and each of these a seed.

    Nor where a run of such a depth diverged: the line would be that of the survivors.
    """
    lines = [
        {
            g.depth: g
            for g in groups
            if g.family == f and g.depth is not None and g.having(*FINISHED)
        }
        for f in (family, twin)
    ]
    depths = sorted(set(lines[0]) & set(lines[1]))
    if len(depths) < 3 or any(line[depth].diverged for line in lines for depth in depths):
        return None
    slopes, found = [], []
    for field in FIELDS:
        errors = [[line[depth].by_seed(field) for depth in depths] for line in lines]
        seeds = sorted(set.intersection(*(set(own) for line in errors for own in line)))
        if not seeds:
            return None
        ours, theirs = (
            [1000 * linregress(depths, [own[s] for own in line]).slope for s in seeds]
            for line in errors
        )
        more = [a - b for a, b in zip(ours, theirs, strict=True)]
        slopes.append((_slope(ours), _slope(theirs)))
        found.append(_slope(more))
    return Trend(family, twin, tuple(depths), len(seeds), (slopes[0], slopes[1]), *found)


def _slope(values: Sequence[float]) -> Difference:
    return statistics.contrast((1.0, _floored(statistics.summarize(values))))


def compare_families(groups: Sequence[Group], table: pd.DataFrame) -> list[Comparison]:
    """One comparison for each family of networks that differ in depth, in the families' order.

    `groups` share data set and setting, and no two of a family have one depth. Each family is
    compared at the deepest and shallowest depth that it shares with the first family (its twins),
    or at its own where it shares fewer than two; a family that goes deeper than its twins is
    compared a second time, at its own deepest. Depths without a finished run wait.
    """
    depths: dict[str, dict[int, Group]] = {}
    for group in groups:
        if group.depth is not None and (group.completed or group.diverged):
            depths.setdefault(group.family, {})[group.depth] = group
    families = [family for family in naming.FAMILIES if len(depths.get(family, ())) > 1]
    if not families:
        return []
    reference = set(depths[families[0]])
    for family in families[1:2]:
        reference = _twins(reference, set(depths[family]))
    comparisons = []
    for family in families:
        of_depth = depths[family]
        twins = _twins(set(of_depth), reference)
        comparisons.append(compare(of_depth[min(twins)], of_depth[max(twins)], table))
        if max(of_depth) > max(twins):
            comparisons.append(compare(of_depth[min(twins)], of_depth[max(of_depth)], table))
    return comparisons


def _twins(depths: set[int], others: set[int]) -> set[int]:
    shared = depths & others
    return shared if len(shared) > 1 else depths


# What a single run borrows: it has no spread of its own.

SPREADS = Path(__file__).with_name("spreads.csv")
"""What several seeds of a network gave, by data set and length; see `results_md.write_spreads`."""

SAME = {
    "dataset": "dataset.name",
    "num_steps": "num_steps",
    "batch_size": "batch_size",
    "learning_rate": "schedule.learning_rate",
}
"""Columns of that table in which runs must agree, and the config's fields."""


def packaged_spreads() -> pd.DataFrame:
    """The table that comes with the package; errors are standard deviations in points."""
    return pd.read_csv(SPREADS, dtype={"settings": str})


def other_settings(group: Group) -> str:
    """A digest of the settings that a spread's other columns do not have.

    What stood for a field before there was one is left out, as in the config of an older run.
    """
    rest = {
        field: naming.as_text(value)
        for field, value in sorted(group.settings.items())
        if field not in {*SAME.values(), "model.name"}
        and value not in (None, LEGACY_DEFAULTS.get(field))
    }
    return hashlib.sha256(repr(rest).encode()).hexdigest()[:8]


def find_spread(table: pd.DataFrame, group: Group, field: str) -> pd.Series | None:
    """The table's row of runs like the group's: same data set, length and all other settings.

    The network's own where it was measured, else the largest of those of its family that are
    deeper: a shallower network's says nothing of a deeper one's.
    """
    same = table[table["family"] == group.family]
    for column, name in SAME.items():
        same = same[same[column] == group.settings.get(name)]
    same = same[same[field].notna()]
    same = same[same["settings"] == other_settings(group)]
    same = same[same["model"].map(zoo.depth) >= (group.depth or math.inf)]
    own = same[same["model"] == group.model]
    if same.empty:
        return None
    return (same if own.empty else own).sort_values(field).iloc[-1]
