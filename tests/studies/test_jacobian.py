"""Singular values of the input–output Jacobian: known ones are found."""

import jax
import numpy as np
import pytest
from nets import IMAGES, make, shaken

from configs import digits
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe
from resnet_jax.studies import jacobian, networks
from resnet_jax.studies.hooks import double_precision

LINEAR = {"norm": "none", "activation": "linear", "initialization": "delta_orthogonal"}


def test_linear_delta_orthogonal_network_is_an_isometry_at_any_depth():
    model, variables = make("plain-8", stage_sizes=(12,), **LINEAR)
    shallow, deep = jacobian.spectra(model, variables, IMAGES[0], blocks=(0, 11))
    for found in (shallow, deep):
        assert found.exact
        assert found.values.shape == (64,)
        np.testing.assert_allclose(found.values, 1.0, rtol=1e-4)
        assert found.rms == pytest.approx(1.0, rel=1e-4)


def test_gaussian_linear_network_is_none():
    model, variables = make("plain-8", stage_sizes=(6,), norm="none", activation="linear")
    (found,) = jacobian.spectra(model, variables, IMAGES[0], blocks=(5,))
    assert found.values[0] > 10 * found.values[-1]


def test_exact_values_are_those_of_the_whole_matrix():
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    variables = shaken(variables)
    image = IMAGES[0]
    with double_precision(model, variables) as (wide, values):
        stage = lambda x: wide.apply(values, x[None], features=True)[1]
        matrix = np.asarray(jax.jacrev(stage)(image.astype(np.float64))).reshape(-1, image.size)
    (found,) = jacobian.spectra(model, variables, image, blocks=(1,))
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found.values, expected, rtol=1e-8, atol=1e-12 * expected[0])


def test_values_below_the_resolution_of_float32_are_found():
    """Eight layers that each add a pixel's left neighbour: known values over six decades."""
    model, variables = make("plain-8", stage_sizes=(4,), width=1, **LINEAR)
    params = jax.tree.map(np.array, variables["params"])
    for layer in (params[name][conv] for name in model.block_names for conv in ("conv1", "conv2")):
        layer["kernel"][...] = 0.0
        layer["kernel"][1, 0:2] = 1.0
    (found,) = jacobian.spectra(model, {**variables, "params": params}, IMAGES[0], blocks=(3,))
    rows = np.linalg.matrix_power(np.eye(8) + np.eye(8, k=-1), 8)  # The stem turns the sign alone.
    expected = np.linalg.svd(rows, compute_uv=False)
    np.testing.assert_allclose(found.values[::8], expected, rtol=1e-8)
    assert found.values[-1] < 1e-5 * found.values[0]


def test_lanczos_finds_the_largest_of_the_exact_values(monkeypatch):
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    (exact,) = jacobian.spectra(model, variables, IMAGES[0], blocks=(1,))
    monkeypatch.setattr(jacobian, "EXACT_UP_TO", 10)
    (found,) = jacobian.spectra(model, variables, IMAGES[0], blocks=(1,), largest=4)
    assert not found.exact
    np.testing.assert_allclose(found.values, exact.values[:4], rtol=1e-2)
    assert found.rms == pytest.approx(exact.rms, rel=0.35)


def test_one_place_is_after_the_last_block_and_none_is_refused(monkeypatch):
    asked = []
    monkeypatch.setattr(jacobian, "spectra", lambda *given: asked.append(given[3]) or [])
    monkeypatch.setattr(networks.Network, "ready", lambda *_: None)
    given = networks.collect([], [Recipe.from_config(digits.get_config("plain-14"))])
    for places in (1, 2):
        jacobian.measure(given, lambda _: iter, places=places)
    assert asked == [[5], [0, 5]]
    with pytest.raises(InputError, match="places=0: give at least 1"):
        jacobian.measure(given, lambda _: iter, places=0)
