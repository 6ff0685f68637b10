"""Lesions: a block that is deleted is gone, and one that did nothing is not missed."""

import contextlib

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from nets import IMAGES, LABELS, make, shaken

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.models.resnet import ResidualBlock
from resnet_jax.studies import hooks, lesions


def logits_of(model, variables, images=IMAGES):
    return np.asarray(model.apply(variables, images, train=False))


def without_block(name, **axes):
    """A network of (1, 2, 1) blocks that has lost its third, and one of (1, 1, 1)."""
    model, variables = make(name, stage_sizes=(1, 2, 1), **axes)
    variables = with_statistics_of(model, variables, IMAGES)
    short = zoo.create(name, width=4, stage_sizes=(1, 1, 1), **axes)
    cut = {
        collection: {key: value for key, value in tree.items() if key != "stage2_unit2"}
        for collection, tree in variables.items()
    }
    return model, variables, short, cut


@pytest.mark.parametrize(
    "name", ["plain-8", "resnet-8", pytest.param("preact-resnet-8", marks=pytest.mark.weekly)]
)
def test_network_without_a_block_is_the_one_that_never_had_it(name):
    model, variables, short, cut = without_block(name)
    labels = logits_of(short, cut).argmax(-1)  # So the cut network makes no error.
    assert lesions.error_with(model, variables, np.ones(4), IMAGES, labels) > 0.2
    keep = np.array([True, True, False, True])
    assert lesions.error_with(model, variables, keep, IMAGES, labels) == 0.0
    assert lesions.error_with(model, variables, keep, IMAGES, labels + 1) == 1.0
    errors = lesions.delete_each(model, variables, IMAGES, labels)
    assert errors[2] == 0.0
    assert errors.shape == (4,)


def test_intact_network_makes_the_error_that_it_makes():
    model, variables = make("resnet-8")
    expected = (logits_of(model, variables).argmax(-1) != LABELS).mean()
    assert lesions.error_with(model, variables, np.ones(3), IMAGES, LABELS) == expected


def test_plain_networks_block_of_another_shape_becomes_strides_and_zero_channels():
    model, variables = make("plain-8")
    error = lesions.error_with(model, shaken(variables), [True, False, True], IMAGES, LABELS)
    assert 0 <= error <= 1


def test_swap_exchanges_blocks_of_equal_shape_and_nothing_else():
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


def test_swapping_needs_two_blocks_of_one_shape():
    model, variables = make("resnet-8")
    with pytest.raises(InputError, match="count=1: 0 pairs of blocks"):
        lesions.swap(model, variables, 1, np.random.default_rng(0))


def scaled(x, factor):
    """Returns `x`; its gradient is multiplied by `factor`."""
    return jax.lax.stop_gradient(x) + factor * (x - jax.lax.stop_gradient(x))


def gradient_at_the_first_block(model, variables, images, labels, through=None):
    """Each example's; with `through`, of the path through those blocks' branches alone."""
    share = lambda block: through[model.block_names.index(block.name)]
    first = jax.eval_shape(lambda x: lesions._first_input(model, variables, x), images)

    def loss(probe):
        with contextlib.ExitStack() as stack:
            probed = lambda block, x: x + probe if block.name == model.block_names[0] else x
            stack.enter_context(hooks.block_input(probed))
            if through is not None:
                along = lambda block, _, y: scaled(y, share(block))
                around = lambda block, _, y: scaled(y, 1.0 - share(block))
                stack.enter_context(hooks.branch_output(along))
                stack.enter_context(hooks.changed(ResidualBlock, "project_shortcut", around))
            logits = model.apply(variables, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    return np.asarray(jax.jit(jax.grad(loss))(np.zeros(first.shape, first.dtype)))


@pytest.fixture(scope="module", params=["resnet-8", "preact-resnet-8"])
def in_float64(request):
    model, variables = make(request.param)
    with hooks.double_precision(model, shaken(variables)) as (wide, values):
        yield wide, values, IMAGES.astype(np.float64), LABELS


def test_parts_of_all_lengths_sum_to_the_whole_gradient(in_float64):
    parts = np.asarray(lesions._path_parts(*in_float64))
    whole = gradient_at_the_first_block(*in_float64)
    assert parts.shape == (4, *whole.shape)
    np.testing.assert_allclose(parts.sum(0), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.slow
def test_part_of_a_length_is_the_sum_over_its_paths_one_by_one(in_float64):
    expected = np.zeros((4, *gradient_at_the_first_block(*in_float64).shape))
    for bits in np.ndindex(2, 2, 2):
        expected[sum(bits)] += gradient_at_the_first_block(*in_float64, np.array(bits, float))
    found = np.asarray(lesions._path_parts(*in_float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_shares_are_signed_and_sum_to_one_and_nothing_is_left_beyond_the_longest_path():
    model, variables = make("resnet-8")
    found = lesions.path_gradients(model, shaken(variables), IMAGES, LABELS)
    np.testing.assert_array_equal(found.length, [0, 1, 2, 3])
    np.testing.assert_allclose(found.share_of_paths, [1 / 8, 3 / 8, 3 / 8, 1 / 8])
    assert found.share.sum() == pytest.approx(1.0, abs=1e-12)
    assert found.norm.sum() >= 1.0
    assert found.rest[-1] == pytest.approx(0.0, abs=1e-12)
    assert found.rest[0] == pytest.approx(
        np.sqrt(1 - 2 * found.share[0] + found.norm[0] ** 2), rel=1e-6
    )


def test_examples_are_decomposed_alike_in_one_part_or_in_several(monkeypatch):
    model, variables = make("resnet-8")
    whole = lesions.path_gradients(model, variables, IMAGES, LABELS)
    monkeypatch.setattr(lesions, "_PIXELS", 4 * 64 * 3)
    np.testing.assert_allclose(lesions.path_gradients(model, variables, IMAGES, LABELS), whole)


def test_branch_that_is_silent_carries_no_path():
    model, variables = make("resnet-8", activation="linear", norm="none")
    silent = jax.tree.map(np.array, variables)
    for name in model.block_names:
        silent["params"][name]["conv2"]["kernel"][:] = 0.0
    found = lesions.path_gradients(model, silent, IMAGES, LABELS)
    np.testing.assert_allclose(found.share, [1, 0, 0, 0], atol=1e-15)


def test_plain_network_has_one_path_only():
    model, variables = make("plain-8")
    with pytest.raises(InputError, match="one path only"):
        lesions.path_gradients(model, variables, IMAGES, LABELS)


def test_network_too_bad_for_lesions_has_its_paths_told():
    about = {"network": "resnet-8", "family": "resnet", "depth": 8, "seed": 0, "step": 60,
             "classes": 10}  # fmt: skip
    paths = zip((0, 1, 2, 3), (0.0, 0.25, 0.5, 0.25), (1.0, 1.0, 0.75, 0.0), strict=True)
    table = pd.DataFrame(
        [
            {**about, "kind": "intact", "error": 0.8},
            *({**about, "kind": "delete_each", "block": n, "error": 0.86} for n in (1, 2, 3)),
            *(
                {**about, "kind": "path", "length": length, "share": share, "norm": share,
                 "rest": rest}
                for length, share, rest in paths
            ),
        ]
    )  # fmt: skip
    lesion, path = lesions.summarize(table)
    assert lesion == (
        "resnet-8 (one seed) has an error of 80.0% with all its blocks and of 86.0% without one "
        "(median over 3 blocks), where chance is 90.0%: too much to tell what a block is worth."
    )
    assert path.startswith("Of resnet-8's 3 blocks, paths through at most 3 sum to the gradient")
    assert "by signed share paths are 2.0 blocks long" in path


def test_paths_over_training_begin_at_initialisation_and_end_as_those_of_the_last_step():
    about = {"network": "resnet-8", "family": "resnet", "depth": 8, "seed": 0, "classes": 10}
    lesion = [
        {**about, "step": 60, "kind": "intact", "error": 0.1},
        {**about, "step": 60, "kind": "delete_each", "block": 1, "error": 0.2},
    ]
    shares = {0: (0.25, 0.75), 30: (0.5, 0.5), 60: (1.0, 0.0)}
    paths = [
        {**about, "step": step, "kind": "path", "length": length, "share": share, "norm": share,
         "rest": 0.0}
        for step, both in shares.items()
        for length, share in enumerate(both)
    ]  # fmt: skip
    table = pd.DataFrame(lesion + paths)
    _, last, lengths = lesions.summarize(table)
    assert "by signed share paths are 0.0 blocks long" in last
    assert lengths == (
        "In training resnet-8's paths are, in blocks and by signed share, so long: 0.8 after 0, "
        "0.5 after 30 and 0.0 after 60 steps."
    )
    assert [panel.title for panel in lesions.plot(table)[-1]][2:] == ["Length of paths in training"]
    only_last = table[table["step"] == 60]
    assert lesions.summarize(only_last)[:2] == lesions.summarize(table)[:2]
    assert len(lesions.plot(only_last)[-1]) == 2
