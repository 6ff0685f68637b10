"""Means over a few examples at a time."""

import numpy as np
import pytest

from resnet_jax.studies.hooks import batches, mean_over


@pytest.mark.parametrize("count", [1, 7, 10, 11, 29])
def test_parts_hold_every_example_once_in_at_most_two_sizes(count):
    numbers = np.arange(count)
    parts = [part for (part,) in batches(numbers, at_once=10)]
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    assert len({len(part) for part in parts}) <= 2
    assert max(map(len, parts)) <= 10
    assert mean_over(lambda part: part.mean(), numbers, at_once=10) == pytest.approx(numbers.mean())
