"""A folded network is a plain one that computes the same."""

import jax
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.models.folding import fold

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def variables_of(model):
    """Its variables, with scales, biases and statistics away from 1 and 0."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES))
    random = np.random.default_rng(1)
    draw = lambda leaf: random.uniform(0.2, 1.0, leaf.shape).astype(np.float32)
    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize(("parameterization", "norm"), [("dirac", "batch"), ("repvgg", "none")])
@pytest.mark.parametrize("axes", [{}, {"name": "plain-5", "block": "one_layer"}])
def test_folded_network_is_plain_and_computes_the_same(parameterization, norm, axes):
    axes = {"name": "plain-8", "width": 4, "bn_group_size": None, **axes}
    model = zoo.create(parameterization=parameterization, **axes)
    variables = variables_of(model)
    folded, found = fold(model, variables)
    plain = zoo.create(norm=norm, **axes)
    assert folded == plain
    shapes = jax.eval_shape(lambda: plain.init(jax.random.key(0), IMAGES))
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, dict(shapes))
    logits = model.apply(variables, IMAGES)
    np.testing.assert_allclose(plain.apply(found, IMAGES), logits, rtol=1e-4)


def test_folded_dirac_network_computes_the_same_in_training():
    model = zoo.create("plain-8", width=4, bn_group_size=2, parameterization="dirac")
    variables = variables_of(model)
    folded, found = fold(model, variables)
    run = lambda net, of: net.apply(of, IMAGES, train=True, mutable=["batch_stats"])
    for one, other in zip(
        *(jax.tree.leaves(run(*pair)) for pair in ((model, variables), (folded, found))),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)


def test_standard_network_stays_as_it_is():
    model = zoo.create("resnet-8", width=4)
    variables = variables_of(model)
    folded, found = fold(model, variables)
    assert folded == model
    jax.tree.map(np.testing.assert_array_equal, found, dict(variables))
