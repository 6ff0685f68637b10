"""Is the deepest net of a family worse than its shallowest, and where: in training or in test?"""

import dataclasses
import enum
from collections.abc import Sequence

from resnet_jax.reporting import naming
from resnet_jax.reporting.results import Group
from resnet_jax.reporting.statistics import Difference, welch

THRESHOLD = 5.0
"""Percentage points by which single seeds must differ to be called different, and that an interval
must exclude to be called no difference. Fully trained CIFAR nets differ by a few tenths of a point
from seed to seed, nets of a short run by a few points."""


class Verdict(enum.Enum):
    """What a comparison of two depths shows."""

    OPTIMISATION = "higher training error: an optimisation effect"
    DIVERGED = "most of the deeper net's runs diverged: an optimisation effect"
    OVERFITTING = "only the test error is higher: overfitting"
    NONE = "the deeper net is no worse"
    SMALL = "no difference that these seeds can show"
    NOISE = "these seeds are too few to tell"
    UNDECIDED = "no finished runs to compare"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Deepest against shallowest net of one family under one setting.

    `train` and `test` are deep less shallow, in percentage points of final error.
    """

    shallow: Group
    deep: Group
    train: Difference
    test: Difference
    verdict: Verdict

    @property
    def family(self) -> str:
        return self.deep.family

    @property
    def seeds(self) -> tuple[int, int]:
        """Completed runs of the deep and of the shallow net."""
        return len(self.deep.completed), len(self.shallow.completed)

    def describe_seeds(self) -> str:
        deep, shallow = self.seeds
        if deep == shallow:
            return f"{deep} seed{'s' * (deep != 1)} a side"
        return f"{deep} and {shallow} seeds"


def compare(shallow: Group, deep: Group) -> Comparison:
    train, test = (
        _within_bounds(welch(percent(deep.values(field)), percent(shallow.values(field))))
        for field in ("train_error", "test_error")
    )
    return Comparison(shallow, deep, train, test, _verdict(shallow, deep, train, test))


def _within_bounds(difference: Difference) -> Difference:
    """Two errors in percent differ by 100 at most, whatever few seeds' interval says."""
    if not difference.has_interval:
        return difference
    low, high = max(difference.low, -100.0), min(difference.high, 100.0)
    return Difference(difference.value, low, high)


def percent(fractions: Sequence[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def _verdict(shallow: Group, deep: Group, train: Difference, test: Difference) -> Verdict:
    diverges_more = deep.share_diverged > shallow.share_diverged
    if diverges_more and deep.share_diverged > 0.5 and shallow.completed:
        return Verdict.DIVERGED
    if not deep.values("train_error") or not shallow.values("train_error"):
        return Verdict.UNDECIDED
    if direction(train) > 0:
        return Verdict.OPTIMISATION
    if diverges_more or _most(train) > THRESHOLD:
        return Verdict.NOISE  # Runs that diverged are not in the means.
    if direction(test) > 0:
        return Verdict.OVERFITTING if _gap_is_wider(shallow, deep) else Verdict.NOISE
    if direction(train) < 0 or direction(test) < 0:
        return Verdict.NONE
    return Verdict.SMALL


def _gap_is_wider(shallow: Group, deep: Group) -> bool:
    """Whether test less training error is clearly larger in the deep net; never by single seeds."""
    gap = welch(percent(deep.gaps), percent(shallow.gaps))
    return gap.has_interval and direction(gap) > 0


def direction(difference: Difference) -> int:
    """+1 if clearly above zero, -1 if clearly below, else 0.

    Clearly: the whole interval is on that side, or with one seed, by the threshold above.
    """
    if difference.has_interval:
        return int(difference.low > 0) - int(difference.high < 0)
    return int(difference.value > THRESHOLD) - int(difference.value < -THRESHOLD)


def _most(difference: Difference) -> float:
    return difference.high if difference.has_interval else difference.value


def compare_families(groups: Sequence[Group]) -> list[Comparison]:
    """One comparison for each family of nets that differ in depth, in the families' order.

    `groups` share data set and setting. Each family is compared at the deepest and shallowest
    depth that it shares with the first family (its twins), or at its own where it shares fewer
    than two; a family that goes deeper than its twins is compared a second time, at its own
    deepest. Depths without a finished run wait.
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
        comparisons.append(compare(of_depth[min(twins)], of_depth[max(twins)]))
        if max(of_depth) > max(twins):
            comparisons.append(compare(of_depth[min(twins)], of_depth[max(of_depth)]))
    return comparisons


def _twins(depths: set[int], others: set[int]) -> set[int]:
    shared = depths & others
    return shared if len(shared) > 1 else depths
