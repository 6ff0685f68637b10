"""Gradients of a linear network never shatter; a deep plain network's more than a residual's."""

import numpy as np
import pytest
from nets import make

from configs import digits
from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.runs import Recipe
from resnet_jax.studies import networks, shattering

IMAGES = np.random.default_rng(2).normal(size=(16, 8, 8, 1)).astype(np.float32)


def correlation(name, **axes):
    model, variables = make(name, images=IMAGES, **axes)
    return shattering.correlation(model, with_statistics_of(model, variables, IMAGES), IMAGES)


def test_linear_network_has_one_gradient_for_all_images():
    found = correlation("plain-8", activation="linear", stage_sizes=(1, 1))
    assert found.nearby == pytest.approx(1.0, abs=1e-4)
    assert found.unrelated == pytest.approx(1.0, abs=1e-4)
    assert found.nearby_inputs > 0.9
    assert abs(found.unrelated_inputs) < 0.2


def test_plain_networks_gradients_shatter_with_depth_and_residual_networks_less():
    shallow = correlation("plain-8", stage_sizes=(1,))
    plain, residual = (correlation(name, stage_sizes=(8,)) for name in ("plain-8", "resnet-8"))
    assert plain.nearby < shallow.nearby
    assert plain.nearby < residual.nearby
    assert plain.unrelated < shallow.unrelated


def test_networks_of_another_kind_are_no_depths_of_the_line():
    recipe = Recipe.from_config(digits.get_config("resnet-34"))
    (network,) = networks.collect([], [recipe])
    with pytest.raises(InputError, match="are no networks of the kind of resnet-34"):
        shattering.measure([network], iter, depths=(8, 20, 56))


def test_image_is_no_partner_of_itself():
    with pytest.raises(InputError, match="examples=1: an image's partner is another one"):
        shattering.measure([], iter, examples=1)


def test_depths_on_different_data_are_not_compared():
    recipe = Recipe.from_config(digits.get_config("plain-8"))
    given = [
        networks.Network(recipe.replace(**{"dataset.name": name}), None, "plain-8")
        for name in ("digits", "cifar10")
    ]
    with pytest.raises(InputError, match="dataset: shattering compares depths on one data set"):
        shattering.measure(given, iter)


def test_gradient_of_zero_counts_as_uncorrelated():
    assert shattering._cosine(np.zeros((2, 3)), np.ones((2, 3))) == 0.0
