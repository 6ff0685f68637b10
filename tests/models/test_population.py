"""Batch-norm statistics of given images are what their name says."""

import jax
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.models.batch_norm_recalibration import mean_over_groups, with_statistics_of

IMAGES = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype(np.float32)


def make(**axes):
    model = zoo.create("resnet-8", 3, width=4, **axes)
    return model, model.init(jax.random.key(0), IMAGES[:1], train=False)


def test_net_with_a_batchs_statistics_computes_in_evaluation_what_it_does_in_training():
    model, variables = make()
    variables = with_statistics_of(model, variables, IMAGES)
    trained, _ = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    # Running variances are unbiased: 1 in the number of places they differ from a batch's.
    np.testing.assert_allclose(model.apply(variables, IMAGES), trained, rtol=0.02, atol=0.01)


def test_net_without_batch_norm_stays_as_it_is():
    model, variables = make(norm="none")
    assert with_statistics_of(model, variables, IMAGES)["batch_stats"] == {}
    assert mean_over_groups(model, variables, [IMAGES])["batch_stats"] == {}


def test_mean_over_groups_is_that_of_the_groups_one_by_one():
    """Whatever the batches in which they come, and whatever the running averages were."""
    model, variables = make(bn_group_size=4)
    moved = jax.tree.map(lambda leaf: leaf + 1.0, variables["batch_stats"])
    variables = {**variables, "batch_stats": moved}
    batches = [IMAGES[:16], IMAGES[16:]]  # of four and of two groups
    found = mean_over_groups(model, variables, batches)["batch_stats"]
    # Stem convolution by itself: a layer whose inputs are known.
    stem = variables["params"]["stem"]["kernel"]
    outputs = jax.lax.conv_general_dilated(
        IMAGES, stem, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    groups = np.asarray(outputs, np.float64).reshape(6, -1, 4)
    np.testing.assert_allclose(found["stem_norm"]["mean"], groups.mean((0, 1)), atol=1e-5)
    variances = groups.var(1, ddof=1).mean(0)
    np.testing.assert_allclose(found["stem_norm"]["var"], variances, rtol=1e-4)
    alone = [
        with_statistics_of(model, variables, IMAGES[i : i + 4])["batch_stats"]
        for i in range(0, 24, 4)
    ]
    means = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, means)


def test_batch_that_is_no_whole_number_of_groups_is_refused():
    model, variables = make(bn_group_size=4)
    with pytest.raises(ValueError, match="not a whole number of groups"):
        mean_over_groups(model, variables, [IMAGES[:6]])
