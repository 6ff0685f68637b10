"""Batch-norm statistics of given images, and sums over a few examples at a time."""

import numpy as np
import pytest
from nets import IMAGES, make, shaken

from resnet_jax.analysis.batches import batches, mean_over
from resnet_jax.analysis.population import with_statistics_of


def test_net_with_a_batchs_statistics_computes_in_evaluation_what_it_does_in_training():
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    images = np.concatenate([IMAGES] * 8)
    variables = with_statistics_of(model, shaken(variables), images)
    trained, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    # Running variances are unbiased: 1 in the number of places they differ from a batch's.
    np.testing.assert_allclose(model.apply(variables, images), trained, rtol=0.02, atol=0.01)


def test_net_without_batch_norm_stays_as_it_is():
    model, variables = make("plain-8", norm="none", stage_sizes=(1,))
    assert with_statistics_of(model, variables, IMAGES)["batch_stats"] == {}


@pytest.mark.parametrize("count", [1, 7, 10, 11, 29])
def test_parts_hold_every_example_once_in_at_most_two_sizes(count):
    numbers = np.arange(count)
    parts = [part for (part,) in batches(numbers, at_once=10)]
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    assert len({len(part) for part in parts}) <= 2
    assert max(map(len, parts)) <= 10
    assert mean_over(lambda part: part.mean(), numbers, at_once=10) == pytest.approx(numbers.mean())
