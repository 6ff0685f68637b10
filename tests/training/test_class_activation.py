"""A class's map sums to its logit and lies where the picture has what it speaks of."""

import jax
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.models.fully_convolutional import with_output_stride
from resnet_jax.training.class_activation import Box, box, class_activation_map, enlarge

NOISE = np.random.default_rng(0)


def test_mean_of_the_map_and_the_bias_are_the_logit():
    model = zoo.create("resnet-8", 3, width=4)
    images = NOISE.normal(size=(2, 32, 48, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    variables["params"]["classifier"]["bias"] += np.array([1.0, 2.0, 3.0])
    labels, sizes = np.array([2, 0]), np.full((2, 2), (32, 48))
    maps = np.asarray(class_activation_map(model, variables, images, labels, sizes))
    assert maps.shape == (2, 8, 12)
    logits = np.asarray(model.apply(variables, images))
    found = maps.mean((1, 2)) + np.array([3.0, 1.0])
    np.testing.assert_allclose(found, logits[[0, 1], labels], rtol=1e-4, atol=1e-4)


def blurring(output_stride: int):
    """A plain net that does nothing but blur: its map is a picture's brightness, coarsely."""
    model = zoo.create(
        "plain-18", 2, width=1, norm="none", activation="linear", output_stride=output_stride
    )
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    ones = lambda path, leaf: (
        np.zeros_like(leaf) if path[-1].key == "bias" else np.ones_like(leaf) / leaf[..., 0].size
    )
    return model, jax.tree_util.tree_map_with_path(ones, variables)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_map_peaks_at_the_very_spot_that_it_speaks_of(stride):
    """Dilated or not: a map that lay half a place off would be off by up to 16 pixels."""
    model, variables = blurring(stride)
    image = np.zeros((1, 192, 288, 3), np.float32)
    image[0, 96, 160] = 1.0
    sizes = np.array([(192, 288)])
    (places,) = class_activation_map(model, variables, image, np.array([0]), sizes)
    assert places.shape == (192 // stride, 288 // stride)
    own = enlarge(np.asarray(places), model, (192, 288), (384, 576))  # seen at half its size
    row, column = np.unravel_index(own.argmax(), own.shape)
    assert abs(row - 192.5) <= 1
    assert abs(column - 320.5) <= 1


def test_finer_map_is_of_the_same_net():
    model, variables = blurring(32)
    image = NOISE.random((1, 64, 64, 3)).astype(np.float32)
    sizes, label = np.array([(64, 64)]), np.array([0])
    coarse = class_activation_map(model, variables, image, label, sizes)
    fine = class_activation_map(with_output_stride(model, 8), variables, image, label, sizes)
    np.testing.assert_allclose(fine[:, ::4, ::4], coarse, rtol=1e-3)


def test_box_is_around_the_largest_part_above_a_fifth_of_the_maximum():
    map = np.full((20, 30), 0.1)
    map[2:5, 3:6] = 1.0  # brighter,
    map[10:18, 12:25] = 0.5  # but smaller than this
    assert box(map) == Box(left=12, top=10, right=25, bottom=18)
    assert box(map, threshold=0.6) == Box(3, 2, 6, 5)


def test_map_that_speaks_for_nothing_has_no_box():
    assert box(np.full((4, 4), -1.0)) is None
    assert box(np.zeros((4, 4))) is None
