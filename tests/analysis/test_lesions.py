"""Lesions: a unit that is deleted is gone, and one that did nothing is not missed."""

import jax
import numpy as np
import pytest
from nets import IMAGES, LABELS, make, shaken

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.studies import lesions


def logits_of(model, variables, images=IMAGES):
    return np.asarray(model.apply(variables, images, train=False))


def without_unit(name, **axes):
    """A net of (1, 2, 1) units whose second stage has lost its second, and that of (1, 1, 1)."""
    model, variables = make(name, stage_sizes=(1, 2, 1), **axes)
    variables = with_statistics_of(model, variables, IMAGES)
    short = zoo.create(name, width=4, stage_sizes=(1, 1, 1), **axes)
    cut = {
        collection: {key: value for key, value in tree.items() if key != "stage2_unit2"}
        for collection, tree in variables.items()
    }
    return model, variables, short, cut


@pytest.mark.parametrize(
    "name", ["plain-8", "resnet-8", pytest.param("preact-resnet-8", marks=pytest.mark.slow)]
)
def test_net_without_a_unit_is_the_net_that_never_had_it(name):
    model, variables, short, cut = without_unit(name)
    labels = logits_of(short, cut).argmax(-1)  # So the cut net makes no error.
    assert lesions.error_with(model, variables, np.ones(4), IMAGES, labels) > 0.2
    keep = np.array([True, True, False, True])
    assert lesions.error_with(model, variables, keep, IMAGES, labels) == 0.0
    assert lesions.error_with(model, variables, keep, IMAGES, labels + 1) == 1.0
    errors = lesions.delete_each(model, variables, IMAGES, labels)
    assert errors[2] == 0.0
    assert errors.shape == (4,)


def test_intact_net_makes_the_error_that_it_makes():
    model, variables = make("resnet-8")
    expected = (logits_of(model, variables).argmax(-1) != LABELS).mean()
    assert lesions.error_with(model, variables, np.ones(3), IMAGES, LABELS) == expected


def test_plain_nets_unit_of_another_shape_becomes_strides_and_zero_channels():
    model, variables = make("plain-8")
    error = lesions.error_with(model, shaken(variables), [True, False, True], IMAGES, LABELS)
    assert 0 <= error <= 1


def test_swap_exchanges_units_of_equal_shape_and_nothing_else():
    model, variables = make("resnet-8", width=2, stage_sizes=(3, 3))
    variables = shaken(variables)
    swapped = lesions.swap(model, variables, 1, np.random.default_rng(3))
    moved = [name for name in model.block_names
             if swapped["params"][name] is not variables["params"][name]]  # fmt: skip
    assert len(moved) == 2
    assert len({name.split("_")[0] for name in moved}) == 1
    assert not any(name.endswith("unit1") for name in moved)
    a, b = moved
    assert swapped["params"][a] is variables["params"][b]
    assert swapped["batch_stats"][b] is variables["batch_stats"][a]


def test_swapping_needs_two_units_of_one_shape():
    model, variables = make("resnet-8")
    with pytest.raises(InputError, match="count=1: 0 pairs of units"):
        lesions.swap(model, variables, 1, np.random.default_rng(0))


def test_gradients_of_all_paths_add_up_to_the_whole_gradient():
    """With linear layers and no norm, the sum over all 2^units paths is the gradient itself."""
    model, variables = make("resnet-8", activation="linear", norm="none")
    carried = {}
    for bits in np.ndindex(2, 2, 2):
        through = np.array(bits, np.float32)
        carried[bits] = float(lesions._path_gradient(model, variables, through, IMAGES, LABELS))
    found = lesions.path_gradients(model, variables, IMAGES, LABELS, lengths=(0, 3), repeats=1)
    np.testing.assert_allclose(found.gradient, [carried[0, 0, 0], carried[1, 1, 1]], rtol=1e-5)
    np.testing.assert_allclose(found.share_of_paths, [1 / 8, 1 / 8])
    silent = jax.tree.map(np.array, variables)
    silent["params"]["stage2_unit1"]["conv2"]["kernel"][:] = 0.0
    blocked = lesions._path_gradient(model, silent, np.array([0, 1, 0], "f"), IMAGES, LABELS)
    around = lesions._path_gradient(model, silent, np.array([1, 0, 1], "f"), IMAGES, LABELS)
    assert float(blocked) == 0.0
    assert float(around) > 0.0


def test_plain_net_has_one_path_only():
    model, variables = make("plain-8")
    with pytest.raises(InputError, match="one path only"):
        lesions.path_gradients(model, variables, IMAGES, LABELS, lengths=(0,))
