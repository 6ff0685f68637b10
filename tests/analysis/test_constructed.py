"""The constructed solution computes what the shallower net does (v1 §1)."""

import dataclasses

import jax
import numpy as np
import pytest
from nets import IMAGES, make, shaken

from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm_recalibration import with_statistics_of
from resnet_jax.studies import constructed

SMALLEST = {"basic": 8, "bottleneck": 11, "one_layer": 5}
AXES = [
    ("plain", {}),
    pytest.param("plain", {"norm": "none", "block": "one_layer"}, marks=pytest.mark.slow),
    ("resnet", {}),
    pytest.param("resnet", {"norm": "none"}, marks=pytest.mark.slow),
    ("resnet", {"block": "bottleneck"}),
    pytest.param("resnet", {"block": "one_layer"}, marks=pytest.mark.slow),
    pytest.param("resnet", {"order": "relu_before_add"}, marks=pytest.mark.slow),
    ("preact-resnet", {}),
    pytest.param("preact-resnet", {"activation": "tanh"}, marks=pytest.mark.slow),
]


def build(family, **axes):
    """A net of (1, 1) units, its weights, one of (2, 1) units and its weights."""
    depth = SMALLEST[axes.get("block", "basic")]
    model, variables = make(f"{family}-{depth}", stage_sizes=(1, 1), **axes)
    variables = shaken(variables)
    deep = model.clone(architecture=dataclasses.replace(model.architecture, stage_sizes=(2, 1)))
    return model, variables, deep, constructed.deepen(model, variables, deep, IMAGES)


@pytest.mark.parametrize(("family", "axes"), AXES, ids=str)
def test_constructed_net_has_the_shallow_nets_logits(family, axes):
    shallow, variables, deep, built = build(family, **axes)
    images = np.random.default_rng(9).normal(size=IMAGES.shape).astype(np.float32)
    expected, found = (
        jax.jit(model.apply)(weights, images)
        for model, weights in ((shallow, variables), (deep, built))
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert np.std(expected) > 1e-3


@pytest.mark.parametrize("family", ["plain", "resnet"])
def test_constructed_net_computes_the_same_in_training_too(family):
    shallow, variables, deep, built = build(family)
    train = lambda model, weights: jax.jit(
        lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"])[0]
    )(weights)
    # With the batch's own statistics in the shallow net, those of its outputs are the batch's too.
    variables = with_statistics_of(shallow, variables, IMAGES)
    built = constructed.deepen(shallow, variables, deep, IMAGES)
    expected = np.asarray(train(shallow, variables))
    found = np.asarray(train(deep, built))
    # Running variances are unbiased ones, a batch's are not: a plain net agrees to 1 in n.
    tolerance = 0.05 if family == "plain" else 1e-5
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("family", "axes", "message"),
    [
        ("plain", {"activation": "tanh"}, "activation='tanh'.*activation='relu'"),
        ("plain", {"block": "bottleneck"}, "block='bottleneck': a plain"),
        ("resnet", {"option": "C"}, "option='C'"),
        ("resnet", {"order": "bn_after_add"}, "order='bn_after_add'"),
        ("resnet", {"shortcut": "exclusive_gating"}, "shortcut='exclusive_gating'"),
        ("resnet", {"activation": "sigmoid"}, "activation='sigmoid'"),
    ],
)
def test_units_that_cannot_be_the_identity_are_refused(family, axes, message):
    with pytest.raises(InputError, match=message):
        build(family, **axes)


def test_net_that_is_not_deeper_is_refused():
    model, variables = make("resnet-14")
    with pytest.raises(InputError, match="not the net of 14 layers with units added"):
        constructed.deepen(model, variables, make("resnet-8")[0], IMAGES)
