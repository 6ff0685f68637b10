"""The constructed solution computes what the shallower network does (v1 §1)."""

import dataclasses

import jax
import numpy as np
import pytest
from nets import IMAGES, LABELS, make, shaken

from configs import digits
from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.runs import Recipe
from resnet_jax.studies import identity_construction, networks
from resnet_jax.studies.hooks import training_loss

SMALLEST = {"basic": 8, "bottleneck": 11, "one_layer": 5}
AXES = [
    ("plain", {}),
    pytest.param("plain", {"norm": "none", "block": "one_layer"}, marks=pytest.mark.weekly),
    ("resnet", {}),
    pytest.param("resnet", {"norm": "none"}, marks=pytest.mark.weekly),
    ("resnet", {"block": "bottleneck"}),
    pytest.param("resnet", {"block": "one_layer"}, marks=pytest.mark.weekly),
    pytest.param(
        "resnet", {"order": "relu_before_add", "activation": "tanh"}, marks=pytest.mark.weekly
    ),
    ("preact-resnet", {}),
    pytest.param("preact-resnet", {"activation": "tanh"}, marks=pytest.mark.weekly),
]


def build(family, **axes):
    """A network of (1, 1) blocks, its weights, one of (2, 1) blocks and its weights."""
    depth = SMALLEST[axes.get("block", "basic")]
    model, variables = make(f"{family}-{depth}", stage_sizes=(1, 1), **axes)
    variables = shaken(variables)
    deep = model.clone(architecture=dataclasses.replace(model.architecture, stage_sizes=(2, 1)))
    return (
        model,
        variables,
        deep,
        identity_construction.insert_identity_blocks(model, variables, deep, IMAGES),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("family", "axes"), AXES, ids=str)
def test_constructed_network_has_the_shallow_ones_logits(family, axes):
    shallow, variables, deep, built = build(family, **axes)
    images = np.random.default_rng(9).normal(size=IMAGES.shape).astype(np.float32)
    expected, found = (
        jax.jit(model.apply)(weights, images)
        for model, weights in ((shallow, variables), (deep, built))
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert np.std(expected) > 1e-3


@pytest.mark.parametrize("order", ["original", "relu_before_add"])
def test_added_block_of_a_skipinit_network_can_learn(order):
    _, _, deep, built = build("resnet", initialization="skipinit", order=order)
    gradient = jax.jit(
        jax.grad(lambda p: training_loss(deep, {**built, "params": p}, IMAGES, LABELS))
    )
    added = gradient(built["params"])["stage1_unit2"]
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(added)) > 0


@pytest.mark.parametrize("family", ["plain", "resnet"])
def test_constructed_network_computes_the_same_in_training_too(family):
    shallow, variables, deep, built = build(family)
    train = lambda model, weights: jax.jit(
        lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"])[0]
    )(weights)
    # With the batch's own statistics in the shallow network, its outputs' are the batch's too.
    variables = with_statistics_of(shallow, variables, IMAGES)
    built = identity_construction.insert_identity_blocks(shallow, variables, deep, IMAGES)
    expected = np.asarray(train(shallow, variables))
    found = np.asarray(train(deep, built))
    # Running variances are unbiased ones, a batch's are not: a plain network agrees to 1 in n.
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
        ("resnet", {"order": "relu_before_add"}, "activation='relu'.*cannot both add nothing and"),
        (
            "resnet",
            {"order": "relu_before_add", "activation": "sigmoid"},
            "activation='sigmoid'.*'relu_before_add'.*one with tanh can",
        ),
    ],
)
def test_blocks_that_cannot_be_the_identity_are_refused(family, axes, message):
    with pytest.raises(InputError, match=message):
        build(family, **axes)


def test_network_from_scratch_has_no_frozen_parts_and_the_built_one_has_them(monkeypatch):
    recipe = Recipe.from_config(digits.get_config("resnet-8,freeze=stem"))
    network = networks.Network(recipe.replace(init_from="elsewhere"), None, "resnet-8")
    weights = {"params": {}, "batch_stats": {}}
    found = {"logits": np.ones((8, 10)), "loss": 1.0, "error": 0.0}
    trained = []

    def train_on(network, *_):
        trained.append(network.recipe.freeze)
        return weights, []

    monkeypatch.setattr(networks.Network, "require_trained", lambda *_: None)
    monkeypatch.setattr(networks.Network, "last", lambda _: weights)
    monkeypatch.setattr(networks.Network, "initial", lambda _: weights)
    monkeypatch.setattr(identity_construction, "insert_identity_blocks", lambda *_: weights)
    monkeypatch.setattr(identity_construction, "_evaluate", lambda *_: found)
    monkeypatch.setattr(identity_construction, "train_on", train_on)
    table = identity_construction.measure([network], lambda _: iter, examples=8, depth=14)
    assert trained == ["stem", "stem", None]
    assert set(table["start"]) == {"constructed", "shallow", "scratch"}

    table = identity_construction.measure(
        [network], lambda _: iter, examples=8, depth=14, from_scratch=False
    )
    assert trained[3:] == ["stem", "stem"]
    assert set(table["start"]) == {"constructed", "shallow"}


def test_network_that_is_not_deeper_is_refused():
    model, variables = make("resnet-14")
    with pytest.raises(InputError, match="not that of 14 with blocks added"):
        identity_construction.insert_identity_blocks(model, variables, make("resnet-8")[0], IMAGES)
