"""The largest eigenvalue is the Hessian's, and the threshold is where SGD leaves a minimum."""

import functools
import types

import jax
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from nets import IMAGES, LABELS, make, shaken

from resnet_jax.reporting import style
from resnet_jax.studies import sharpness
from resnet_jax.studies.hooks import training_loss
from resnet_jax.training import step


@pytest.mark.slow
def test_largest_eigenvalue_is_that_of_the_whole_hessian():
    model, variables = make("plain-5", width=2, block="one_layer")
    variables = shaken(variables)
    flat, unravel = ravel_pytree(variables["params"])

    @jax.hessian
    def hessian(flat):
        return training_loss(model, {**variables, "params": unravel(flat)}, IMAGES, LABELS)

    with sharpness.cpu.as_jax_has_it():
        values = np.linalg.eigvalsh(np.asarray(jax.jit(hessian)(flat), np.float64))
    found = sharpness.largest_eigenvalue(model, variables, IMAGES, LABELS)
    assert found == pytest.approx(values[-1], rel=0.01)
    assert values[-1] > 1.2 * values[-2]  # So that no other would have been found.


@pytest.mark.parametrize(("product", "eigenvalue"), [(np.nan, np.nan), (np.inf, np.nan), (0, 0)])
def test_network_that_diverged_has_no_eigenvalue_and_a_flat_one_0(product, eigenvalue, monkeypatch):
    found = {"kernel": np.full(20, product, np.float32)}
    monkeypatch.setattr(sharpness, "_hessian_times", lambda *_: found)
    variables = {"params": {"kernel": np.ones(20, np.float32)}}
    value = sharpness.largest_eigenvalue(None, variables, IMAGES, LABELS)
    np.testing.assert_equal(value, eigenvalue)


def test_error_in_training_is_measured_of_networks_with_dropout():
    model, variables = make("resnet-8", shortcut="dropout")
    logits = jax.eval_shape(functools.partial(sharpness._logits, model), variables, IMAGES)
    assert logits.shape == (8, 10)


def test_what_training_makes_nan_of_is_an_error_whatever_its_class():
    model, variables = make("plain-8")
    lost = sharpness._moved(variables, np.nan, seed=0)
    network = types.SimpleNamespace(model=model)
    assert sharpness._error(network, lost, IMAGES, np.zeros(8, int)) == 1


def test_finding_and_figure_say_which_rates_diverge():
    lost = rows("rate", 0.9, rate=0.1, eigenvalue=np.nan)
    some = rows("rate", 0.9, 2, rate=0.03, eigenvalue=np.nan)
    some += [row | {"seed": row["seed"] + 2} for row in rows("rate", 0.0, 3, rate=0.03)]
    diverged = rows("trained", 0.9, eigenvalue=np.nan)
    table = pd.DataFrame(rows("constructed", 0.004) + diverged + lost + some)
    finding = " ".join(sharpness.summarize(table))
    assert "largest eigenvalue is not finite; at" in finding
    assert "0.1 diverges and 0.03 stays in 3 of 5 seeds and diverges in 2 of 5 seeds" in finding
    assert "(error of the others 0.0%" in finding
    assert "nan" not in finding
    with style.drawing_settings():
        svg = style.to_svg(style.draw_all(sharpness.plot(table)))
    assert ">diverges<" in svg
    assert ">2 of 5 diverge<" in svg


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("factor", "stays"), [(0.95, True), (1.05, False)])
def test_sgd_leaves_a_minimum_whose_eigenvalue_is_above_the_threshold(nesterov, factor, stays):
    curvature = factor * sharpness.threshold(0.1, 0.9, nesterov)
    optimizer = step.sgd(0.9, 0.0, nesterov=nesterov)
    params = {"kernel": np.ones(1, np.float32)}
    state = optimizer.init(params)
    for _ in range(300):
        gradient = jax.tree.map(lambda w: curvature * w, params)
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda w, u: w - 0.1 * u, params, updates)
    assert (abs(float(params["kernel"][0])) < 1) == stays


def rows(kind, error, seeds=5, **columns):
    about = {"network": "plain-56", "family": "plain", "depth": 56, "step": 0, "from": "plain-20"}
    about |= {"kind": kind, "rate": 0.1, "limit": 38.0, "eigenvalue": 400.0, "noise": 0.0}
    return [{**about, "seed": seed, "error": error, **columns} for seed in range(seeds)]


def test_finding_tells_at_which_rates_training_stays():
    left = rows("rate", 0.2, rate=0.1) + rows("rate", 0.01, rate=0.01)
    some = rows("rate", 0.0, 2, rate=0.03)
    some += [row | {"seed": row["seed"] + 2} for row in rows("rate", 0.2, 3, rate=0.03)]
    noise = rows("noise", 0.3, noise=0.5, start_error=0.1)
    table = pd.DataFrame(rows("constructed", 0.004) + left + some + noise)
    finding = " ".join(sharpness.summarize(table))
    assert "plain-56, built from plain-20 (5 seeds, training error 0.4%" in finding
    assert "SGD can stay below 38" in finding
    assert "0.1 leaves (error 20.0%" in finding
    assert "0.03 stays in 2 of 5 seeds (error 12.0%" in finding
    assert "0.01 stays (error 1.0%" in finding
    assert "from 0.5 away from 10.0%" in finding
    assert [len(row) for row in sharpness.plot(table)] == [3]
