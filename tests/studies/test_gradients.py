"""Gradients along the depth: they vanish where theory says so, and only there."""

import jax
import numpy as np
import optax
import pytest
from nets import IMAGES, LABELS, make

from configs import digits
from resnet_jax.runs import Recipe
from resnet_jax.studies import gradients, networks
from resnet_jax.studies.hooks import grad_norm_probe


def test_probe_reads_the_norm_of_the_gradient_that_passes_even_of_a_tiny_one():
    loss = lambda x, probe: (1e-30 * grad_norm_probe(x, probe) * np.array([3.0, 4.0])).sum()
    passed, read = jax.grad(loss, argnums=(0, 1))(np.ones(2, np.float32), 0.0)
    np.testing.assert_allclose(passed, [3e-30, 4e-30], rtol=1e-6)
    np.testing.assert_allclose(read, 5e-30, rtol=1e-6)


def test_gradient_at_the_last_block_is_that_of_the_classifier_alone():
    model, variables = make("resnet-8", stage_sizes=(1, 1))
    found = gradients.signals(model, variables, IMAGES, LABELS)

    def loss(features):
        dense = variables["params"]["classifier"]
        logits = features.mean((1, 2)) @ dense["kernel"] + dense["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)

    (*_, last), _ = model.apply(
        variables, IMAGES, train=True, features=True, mutable=["batch_stats"]
    )
    each = jax.grad(lambda features: loss(features).sum())(last)
    norms = np.linalg.norm(np.asarray(each).reshape(len(IMAGES), -1), axis=1)
    assert found.gradient[-1] == pytest.approx(np.sqrt((norms**2).mean()), rel=1e-4)
    assert found.activation[-1] == pytest.approx(np.sqrt((np.asarray(last) ** 2).mean()), rel=1e-4)
    assert list(found.layers) == [3, 5]


def test_deep_sigmoid_network_without_batch_norm_loses_its_gradient_geometrically():
    model, variables = make("plain-8", stage_sizes=(9,), activation="sigmoid", norm="none")
    found = gradients.signals(model, variables, IMAGES, LABELS)
    steps = np.diff(np.log(found.gradient))  # Towards the first unit: a constant factor a block.
    # A sigmoid's slope is at most 1/4, and He's weights give back √2 at most on the average.
    assert (steps > 2 * np.log(4 / np.sqrt(2)) * 0.5).all()
    assert found.ratio < 1e-4
    assert steps.std() < 0.5 * steps.mean()


@pytest.mark.parametrize(
    "axes", [pytest.param({}, marks=pytest.mark.weekly), {"norm": "none", "activation": "tanh"}]
)
def test_residual_network_keeps_its_gradient(axes):
    model, variables = make("resnet-8", stage_sizes=(9,), **axes)
    found = gradients.signals(model, variables, IMAGES, LABELS)
    assert 0.1 < found.ratio < 100


def test_padding_of_small_images_alone_makes_the_gradient_of_a_relu_network_fade():
    """Of two networks with the same weights that one fades more which sees smaller images."""
    model, variables = make("plain-8", stage_sizes=(3, 3, 3), norm="none")
    small = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    large = np.asarray(jax.image.resize(small, (8, 32, 32, 1), "linear"))
    ratios = [gradients.signals(model, variables, each, LABELS).ratio for each in (small, large)]
    assert ratios[1] > 3 * ratios[0]


def test_option_image_size_measures_on_resized_images():
    recipe = Recipe.from_config(digits.get_config("plain-8,model.width=4"))
    network = networks.Network(recipe, None, "plain-8")
    small, large = (
        gradients.measure([network], lambda _: iter, examples=4, image_size=size)
        for size in (0, 16)
    )
    assert [set(table["image_size"]) for table in (small, large)] == [{8}, {16}]
    assert [set(table["map_size"]) for table in (small, large)] == [{2}, {4}]
    assert not np.allclose(small["gradient"], large["gradient"], rtol=0.01)
