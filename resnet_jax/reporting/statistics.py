"""Means, spreads, intervals and power over seeds."""

import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 10_000  # beyond which nobody plans
FEWEST_FREEDOM = 2  # of a spread to plan by: with one degree its 95% interval spans a factor of 70

Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Sample:
    """What several seeds gave, in the unit of the values; NaN where there are too few of them.

    Attributes:
      count, mean, median: over seeds.
      std: with Bessel's correction; NaN for a single seed without a measured spread.
      freedom: degrees of freedom of `std`.
      source: whose spread `std` is, if not the values' own.
    """

    count: int
    mean: float
    std: float
    median: float
    freedom: float
    source: str | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of means over seeds and what is known of its error.

    Attributes:
      value: the difference; NaN if a side has no value.
      variances: of one seed, a term for each mean, squared weights included; empty if unknown.
      error: standard error of `value`; None if a spread is unknown.
      freedom: its degrees of freedom (Welch-Satterthwaite).
      least_freedom: the smallest number that one of the spreads has.
      confidence: of the interval.
      limit: no difference can be larger; the interval is cut there.
    """

    value: float
    variances: tuple[float, ...] = ()
    error: float | None = None
    freedom: float = math.nan
    confidence: float = CONFIDENCE
    limit: float = math.inf
    least_freedom: float = math.nan

    @property
    def has_interval(self) -> bool:
        return self.error is not None

    @property
    def can_plan(self) -> bool:
        """Whether its spreads are known well enough to say what more seeds would find."""
        return self.has_interval and self.least_freedom >= FEWEST_FREEDOM

    @property
    def low(self) -> float | None:
        return None if self.error is None else max(self.value - self._margin, -self.limit)

    @property
    def high(self) -> float | None:
        return None if self.error is None else min(self.value + self._margin, self.limit)

    @property
    def _margin(self) -> float:
        return (self.error or 0.0) * float(stats.t.ppf((1 + self.confidence) / 2, self.freedom))

    @property
    def p_value(self) -> float:
        """Of no difference, two-sided."""
        if self.error is None:
            return math.nan
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    def detectable(self) -> float:
        """The difference that as many seeds find with `POWER` at `confidence`; NaN if unknown.

        From the noncentral t distribution, with the observed spread for the true one.
        """
        if self.error is None or not self.can_plan:
            return math.nan
        return self.error * _noncentrality(POWER, self.freedom, self.confidence)

    def seeds_for(self, effect: float) -> int | None:
        """Seeds of each network that find a difference `effect` with `POWER`, at `confidence`.

        None if unknown, or if `MOST_SEEDS` are too few.
        """
        if not self.can_plan:
            return None
        variance = sum(self.variances)
        if variance == 0:
            return 2
        share = variance**2 / sum(v**2 for v in self.variances)

        def finds(seeds: int) -> bool:
            error = math.sqrt(variance / seeds)
            return _power(effect / error, (seeds - 1) * share, self.confidence) >= POWER

        seeds = 2 + bisect.bisect_left(range(2, MOST_SEEDS + 1), True, key=finds)
        return seeds if seeds <= MOST_SEEDS else None


def _power(noncentrality: float, freedom: float, confidence: float) -> float:
    """Probability that a two-sided t test at that confidence rejects."""
    critical = stats.t.ppf((1 + confidence) / 2, freedom)
    upper = stats.nct.sf(critical, freedom, noncentrality)
    lower = stats.nct.cdf(-critical, freedom, noncentrality)
    # SciPy gives NaN for probabilities too near 0 or 1 to compute.
    return float(np.nan_to_num(upper, nan=1.0) + np.nan_to_num(lower, nan=0.0))


@functools.lru_cache
def _noncentrality(power: float, freedom: float, confidence: float) -> float:
    excess = lambda noncentrality: _power(noncentrality, freedom, confidence) - power
    upper = 1.0
    while excess(upper) < 0:
        upper *= 1.5
    return float(optimize.brentq(excess, 0.0, upper))


def summarize(values: Values) -> Sample:
    """Count, mean, standard deviation and median; NaN where there are too few values."""
    found = np.asarray(values, np.float64)
    if not found.size:
        return Sample(0, math.nan, math.nan, math.nan, math.nan)
    std = float(found.std(ddof=1)) if found.size > 1 else math.nan
    freedom = found.size - 1 if found.size > 1 else math.nan
    return Sample(found.size, float(found.mean()), std, float(np.median(found)), freedom)


def contrast(*terms: tuple[float, Sample], limit: float = math.inf) -> Difference:
    """The weighted sum of independent means, with the interval of Welch and Satterthwaite.

    Variances are not pooled: networks that degrade spread far more over seeds than those that do
    not. Weights 1 and -1 give Welch's t interval of two means. No interval if a spread is unknown.
    """
    value = sum(weight * sample.mean for weight, sample in terms)
    if any(not sample.count or math.isnan(sample.std) for _, sample in terms):
        return Difference(value, limit=limit)
    variances = tuple((weight * sample.std) ** 2 for weight, sample in terms)
    squares = [v / sample.count for v, (_, sample) in zip(variances, terms, strict=True)]
    error = math.sqrt(sum(squares))
    if error == 0:
        freedom = sum(sample.freedom for _, sample in terms)
    else:
        spreads: dict[Any, tuple[float, float]] = {}  # Those of one source count once.
        for place, (square, (_, sample)) in enumerate(zip(squares, terms, strict=True)):
            source = sample.source or place
            before, _ = spreads.get(source, (0.0, 0.0))
            spreads[source] = before + square, sample.freedom
        freedom = sum(squares) ** 2 / sum(s**2 / f for s, f in spreads.values())
    least = min(sample.freedom for _, sample in terms)
    return Difference(value, variances, error, freedom, limit=limit, least_freedom=least)


def welch(values: Values, baseline: Values) -> Difference:
    """Mean of `values` less mean of `baseline`, with Welch's t interval at `CONFIDENCE`."""
    return contrast((1.0, summarize(values)), (-1.0, summarize(baseline)))


def mean_with_interval(values: Values) -> Difference:
    """The mean of values, one a seed, with its t interval at `CONFIDENCE`."""
    return contrast((1.0, summarize(values)))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with intervals that exclude zero exactly where Holm's procedure rejects.

    It keeps the probability of any false rejection among all differences to 5% (Holm 1979); that
    all intervals hold their differences at once is less likely than 95%.

    The smallest of m p-values gets an interval of confidence 1 - .05/m, the next of 1 - .05/(m - 1)
    and so on, up to the first interval that holds zero; all that follow get that one's confidence.
    """
    order = sorted(
        (i for i, d in enumerate(differences) if d.has_interval),
        key=lambda i: differences[i].p_value,
    )
    adjusted, left, rejecting = list(differences), len(order), True
    for rank, index in enumerate(order):
        if rejecting:
            alpha = (1 - CONFIDENCE) / (left - rank)
            rejecting = differences[index].p_value < alpha
        adjusted[index] = dataclasses.replace(differences[index], confidence=1 - alpha)
    return adjusted


def pooled(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The standard deviation within the samples, and its degrees of freedom (NaN and 0 if none)."""
    freedom = sum(len(sample) - 1 for sample in samples)
    if freedom < 1:
        return math.nan, 0
    squares = sum(float(np.var(sample)) * len(sample) for sample in samples)
    return math.sqrt(squares / freedom), freedom


def more_often(successes: int, total: int, others: int, of_others: int) -> bool:
    """Whether the first proportion is higher by Fisher's exact test, two-sided at 5%."""
    if not total or not of_others or successes / total <= others / of_others:
        return False
    table = [[successes, total - successes], [others, of_others - others]]
    return float(stats.fisher_exact(table).pvalue) < 1 - CONFIDENCE
