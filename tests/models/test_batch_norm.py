"""Batch norm in groups is batch norm of each group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.batch_norm import EPSILON, BatchNorm

X = np.random.default_rng(0).normal(3.0, 2.0, (8, 5, 5, 6)).astype(np.float32)


def init(norm):
    return norm.init(jax.random.key(0), X, train=False)


def train(norm, variables, x):
    return norm.apply(variables, x, train=True, mutable=["batch_stats"])


def normalized(x):
    x = x.astype(np.float64)
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + EPSILON)


def test_whole_batch_is_normalised_by_its_own_statistics():
    norm = BatchNorm()
    y, _ = train(norm, init(norm), X)
    np.testing.assert_allclose(y, normalized(X), atol=1e-5)


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_grouped_batch_norm_is_batch_norm_of_each_group(group_size):
    norm = BatchNorm(group_size)
    y, _ = train(norm, init(norm), X)
    groups = X.reshape(-1, group_size, *X.shape[1:])
    np.testing.assert_allclose(y, np.concatenate([normalized(g) for g in groups]), atol=1e-5)


def test_running_statistics_average_the_groups_with_unbiased_variance():
    norm = BatchNorm(group_size=4)
    _, updates = train(norm, init(norm), X)
    groups = X.reshape(2, -1, X.shape[-1]).astype(np.float64)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * groups.mean((0, 1)), rtol=1e-5)
    unbiased = groups.var(1, ddof=1).mean(0)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, 100, 10_000])
def test_mean_far_from_zero_costs_the_variance_no_digits(ratio):
    norm = BatchNorm(group_size=4)
    x = np.random.default_rng(0).normal(ratio, 1.0, (8, 16, 16, 6)).astype(np.float32)
    _, updates = train(norm, init(norm), x)
    unbiased = x.reshape(2, -1, 6).astype(np.float64).var(1, ddof=1).mean(0)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.vdot(train(norm, init(norm), x)[0], jnp.sin(x)))
    np.testing.assert_array_equal(jnp.isfinite(gradient(x)), True)


def test_first_image_unlike_all_others_costs_the_variance_no_digits():
    x = np.random.default_rng(0).normal(10_000.0, 1.0, (4, 16, 16, 6)).astype(np.float32)
    x[0] = 0.0
    norm = BatchNorm()
    _, updates = train(norm, init(norm), x)
    unbiased = x.reshape(-1, 6).astype(np.float64).var(0, ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)


def test_evaluation_uses_running_statistics_and_changes_nothing():
    norm = BatchNorm()
    variables = init(norm)
    variables["batch_stats"] = {"mean": jnp.full(6, 2.0), "var": jnp.full(6, 4.0)}
    y, updates = norm.apply(variables, X, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (X - 2) / np.sqrt(4 + EPSILON), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(updates["batch_stats"]["mean"], 2.0)


def test_statistics_are_float32_under_bfloat16():
    norm = BatchNorm()
    x = jnp.asarray(X, jnp.bfloat16)
    y, updates = train(norm, init(norm), x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * exact, rtol=1e-5)


def test_batch_that_is_not_whole_groups_is_refused():
    norm = BatchNorm(group_size=3)
    with pytest.raises(ValueError, match="8 is not a whole number of groups of 3"):
        train(norm, init(norm), X)
