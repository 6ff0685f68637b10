import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from resnet_jax.reporting.statistics import (
    Difference,
    contrast,
    holm,
    mean_with_interval,
    more_often,
    pooled,
    summarize,
    welch,
)


def test_interval_of_two_means_is_that_of_welch():
    ours, theirs = [1, 2, 3, 4, 5], [2, 4, 6, 8, 10]
    difference = welch(ours, theirs)
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = expected.confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((low, high))
    assert difference.p_value == pytest.approx(expected.pvalue)


def test_interval_of_a_mean_is_that_of_students_t():
    differences = [0.3, 0.9, 1.4, 0.2]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    found = mean_with_interval(differences)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_contrast_of_four_means_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        terms = [
            (weight, summarize(draw.normal(mean, std, count)))
            for weight, mean, std, count in (
                (1, 9, 3, 4),
                (-1, 5, 1, 5),
                (-1, 2, 1, 3),
                (1, 3, 2, 5),
            )
        ]
        difference = contrast(*terms)
        covered += difference.low <= 5 <= difference.high
    assert 0.93 <= covered / 400 <= 0.985


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


def test_detectable_difference_is_found_as_often_as_it_says():
    draw = np.random.default_rng(0)
    given = mean_with_interval([0, 1, 2])
    samples = draw.normal(given.detectable(), 1, (5000, 3))
    rejected = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


def test_means_that_borrow_one_spread_are_known_no_better_than_it():
    one = dataclasses.replace(summarize([1.0]), std=0.5, freedom=4.0)
    own = [(weight, dataclasses.replace(one, source=None)) for weight in (1.0, -1.0)]
    borrowed = [(weight, dataclasses.replace(one, source="plain-56")) for weight in (1.0, -1.0)]
    assert contrast(*own).freedom == pytest.approx(8)
    assert contrast(*borrowed).freedom == pytest.approx(4)


def test_several_spreads_of_two_seeds_are_no_better_known_than_one():
    two = summarize([0, 1])
    found = contrast((1.0, two), (-1.0, two), (-1.0, two), (1.0, two))
    assert found.freedom == pytest.approx(4)
    assert not found.can_plan
    assert math.isnan(found.detectable())


def test_number_of_seeds_for_a_difference_is_the_textbooks():
    # Two groups, difference of one standard deviation, power .8: 17 a group (Cohen 1988).
    one = summarize([-1, 0, 1])
    assert contrast((1.0, one), (-1.0, one)).seeds_for(1.0) == 17


def test_intervals_exclude_zero_exactly_where_holms_test_rejects():
    # p = .0099, .0176, .0429: at 5% Holm rejects the first alone of these three.
    made = [Difference(value, (1.0,), 1.0, 30.0) for value in (2.75, 2.34, 2.21)]
    adjusted = holm([*made, Difference(1.0)])
    assert [d.confidence for d in adjusted[:3]] == pytest.approx([1 - 0.05 / 3, 0.975, 0.975])
    assert [d.low > 0 for d in adjusted[:3]] == [True, False, False]
    assert not adjusted[3].has_interval


def test_pooled_deviation_of_a_worked_example():
    std, freedom = pooled([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0]])
    assert (std, freedom) == (pytest.approx(math.sqrt((2 + 6) / 3)), 3)


def test_three_of_three_against_none_of_three_is_not_yet_more_often():
    assert not more_often(3, 3, 0, 3)
    assert more_often(4, 4, 0, 4)
    assert not more_often(0, 4, 4, 4)
