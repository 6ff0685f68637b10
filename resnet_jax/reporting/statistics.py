"""Means, spreads and intervals over seeds."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Sample:
    """What several seeds gave, in the unit of the values; NaN where there are too few of them."""

    count: int
    mean: float
    std: float
    """With Bessel's correction; NaN for a single seed."""
    median: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of two means and, if both have a spread, its confidence interval."""

    value: float
    low: float | None
    high: float | None

    @property
    def has_interval(self) -> bool:
        return self.low is not None


def summarize(values: Sequence[float]) -> Sample:
    values = np.asarray(values, np.float64)
    if not values.size:
        return Sample(0, math.nan, math.nan, math.nan)
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Sample(values.size, float(values.mean()), std, float(np.median(values)))


def welch(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Mean of `values` less mean of `baseline`, with Welch's t interval at `CONFIDENCE`.

    Welch's, because nets that degrade spread far more over seeds than nets that do not, so that
    the variances must not be pooled. No interval if either side has fewer than two values.
    """
    a, b = summarize(values), summarize(baseline)
    difference = a.mean - b.mean
    if min(a.count, b.count) < 2:
        return Difference(difference, None, None)
    variance_a, variance_b = a.std**2 / a.count, b.std**2 / b.count
    variance = variance_a + variance_b
    if variance == 0:
        return Difference(difference, difference, difference)
    freedom = variance**2 / (variance_a**2 / (a.count - 1) + variance_b**2 / (b.count - 1))
    margin = student_t(CONFIDENCE, freedom) * math.sqrt(variance)
    return Difference(difference, difference - margin, difference + margin)


def student_t(confidence: float, freedom: float) -> float:
    """The t with P(|T| <= t) = `confidence` for Student's distribution; `freedom` >= 1.

    With t = sqrt(freedom) tan(angle) the density becomes cos(angle)^(freedom - 1) on a bounded
    range, which the trapezoidal rule integrates to about six digits.
    """
    angle = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angle).clip(0) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(confidence, below / below[-1], angle))
