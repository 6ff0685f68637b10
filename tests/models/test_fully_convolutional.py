"""The fully convolutional form says the same as the net, and what is filled in says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.models.fully_convolutional import output_stride, score_map, with_output_stride

RNG = np.random.default_rng(0)


def net(name: str, **axes):
    """A net whose batch norms have scales, biases and statistics unlike those of the start."""
    model = zoo.create(name, 3, width=4, **axes)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    variables = model.lazy_init(jax.random.key(0), shape, train=False)
    leaves, tree = jax.tree.flatten(variables)
    moved = [leaf + jnp.asarray(RNG.uniform(0.1, 0.5, leaf.shape), "float32") for leaf in leaves]
    return model, jax.tree.unflatten(tree, moved)


NETS = [
    ("resnet-8", {}),
    ("resnet-18", {}),
    ("preact-resnet-18", {}),
    ("plain-18", {"norm": "none", "activation": "tanh"}),
    ("resnet-8", {"norm": "none", "initialization": "fixup", "activation": "tanh"}),
    ("resnet-18", {"output_stride": 8}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "axes"), NETS)
def test_mean_over_places_is_what_the_net_says_of_the_picture(name, axes):
    model, variables = net(name, **axes)
    images = RNG.normal(size=(2, 45, 70, 3)).astype(np.float32)
    mean = score_map(model, variables, images).mean()
    np.testing.assert_allclose(mean, model.apply(variables, images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "axes"), NETS)
def test_what_fills_a_picture_up_changes_nothing(name, axes):
    model, variables = net(name, **axes)
    sizes = np.array([(45, 70), (64, 33), (64, 96)])
    noise = RNG.normal(size=(3, 64, 96, 3)).astype(np.float32)  # beyond the edges, too
    together = jax.jit(lambda x, s: score_map(model, variables, x, s))(noise, sizes)
    means = together.mean()
    for i, (height, width) in enumerate(sizes):
        alone = score_map(model, variables, noise[i : i + 1, :height, :width])
        np.testing.assert_allclose(means[i], alone.mean()[0], rtol=1e-4, atol=1e-4)
        _, rows, columns, _ = alone.scores.shape
        assert together.inside[i].sum() == rows * columns
        part = together.scores[i, :rows, :columns]
        np.testing.assert_allclose(part, alone.scores[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("full", [21, 33, 34])
def test_picture_may_be_filled_up_to_a_size_that_is_no_whole_number_of_strides(full):
    model, variables = net("resnet-8")
    images = RNG.normal(size=(1, full, full + 1, 3)).astype(np.float32)
    found = score_map(model, variables, images, np.array([(20, 17)]))
    assert found.inside.sum() == 5 * 5
    alone = model.apply(variables, images[:, :20, :17])
    np.testing.assert_allclose(found.mean(), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "axes", "stride"),
    [("resnet-8", {}, 4), ("resnet-18", {}, 32), ("resnet-18", {"output_stride": 8}, 8)],
)
def test_output_stride_is_that_of_the_map(name, axes, stride):
    model, variables = net(name, **axes)
    assert output_stride(model.architecture) == stride
    places = score_map(model, variables, np.zeros((1, 64, 96, 3), np.float32)).scores
    assert places.shape == (1, 64 // stride, 96 // stride, 3)


def test_finer_map_has_the_coarse_one_at_its_places_where_nothing_is_dilated_over_an_edge():
    """With strides of one unit removed and dilated, every other place is computed as before."""
    model, variables = net("resnet-18")
    images = RNG.normal(size=(1, 64, 64, 3)).astype(np.float32)
    coarse = score_map(model, variables, images).scores
    fine = score_map(with_output_stride(model, 16), variables, images).scores
    assert fine.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-4, atol=1e-4)
