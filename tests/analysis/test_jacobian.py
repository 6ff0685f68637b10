"""Singular values of the input–output Jacobian: known ones are found."""

import jax
import numpy as np
import pytest
from nets import IMAGES, make, shaken

from resnet_jax.studies import jacobian

LINEAR = {"norm": "none", "activation": "linear", "initialization": "delta_orthogonal"}


def test_linear_delta_orthogonal_net_is_an_isometry_at_any_depth():
    model, variables = make("plain-8", stage_sizes=(12,), **LINEAR)
    shallow, deep = jacobian.measure(model, variables, IMAGES[0], units=(0, 11))
    for found in (shallow, deep):
        assert found.exact
        assert found.values.shape == (64,)
        np.testing.assert_allclose(found.values, 1.0, rtol=1e-4)
        assert found.rms == pytest.approx(1.0, rel=1e-4)


def test_gaussian_linear_net_is_none():
    model, variables = make("plain-8", stage_sizes=(6,), norm="none", activation="linear")
    (found,) = jacobian.measure(model, variables, IMAGES[0], units=(5,))
    assert found.values[0] > 10 * found.values[-1]


def test_exact_values_are_those_of_the_whole_matrix():
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    variables = shaken(variables)
    image = IMAGES[0]
    stage = lambda x: model.apply(variables, x[None], features=True)[1]
    matrix = np.asarray(jax.jacrev(stage)(image)).reshape(-1, image.size)
    (found,) = jacobian.measure(model, variables, image, units=(1,))
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-4 * expected[0])


def test_lanczos_finds_the_largest_of_the_exact_values(monkeypatch):
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    (exact,) = jacobian.measure(model, variables, IMAGES[0], units=(1,))
    monkeypatch.setattr(jacobian, "EXACT_UP_TO", 10)
    (found,) = jacobian.measure(model, variables, IMAGES[0], units=(1,), largest=4)
    assert not found.exact
    np.testing.assert_allclose(found.values, exact.values[:4], rtol=1e-2)
    assert found.rms == pytest.approx(exact.rms, rel=0.35)
