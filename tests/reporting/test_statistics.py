import math

import numpy as np
import pytest

from resnet_jax.reporting.statistics import student_t, summarize, welch


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10.5, 2.2138), (200, 1.9719)]
)
def test_student_quantiles_are_those_of_the_tables(freedom: float, quantile: float):
    assert student_t(0.95, freedom) == pytest.approx(quantile, abs=2e-4)


def test_welch_interval_of_a_worked_example():
    # Variances 2.5 and 10 over five values each: standard error 1.5811, 5.882 degrees of freedom.
    difference = welch([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert difference.value == -3
    assert difference.low == pytest.approx(-6.887, abs=1e-2)
    assert difference.high == pytest.approx(0.887, abs=1e-2)


def test_interval_covers_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        difference = welch(generator.normal(1, 1, 5), generator.normal(0, 3, 4))
        covered += difference.low <= 1 <= difference.high
    assert 0.92 <= covered / 400 <= 0.98


def test_single_seed_has_no_spread_and_gives_no_interval():
    assert math.isnan(summarize([0.5]).std)
    assert not welch([0.5], [0.1, 0.2]).has_interval
    assert welch([0.5], [0.1, 0.2]).value == pytest.approx(0.35)


def test_equal_values_give_an_interval_without_width():
    difference = welch([2.0, 2.0], [1.0, 1.0])
    assert (difference.low, difference.high) == (1.0, 1.0)


def test_nothing_is_the_mean_of_nothing():
    sample = summarize([])
    assert sample.count == 0
    assert math.isnan(sample.mean)
