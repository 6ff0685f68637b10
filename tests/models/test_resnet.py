"""A whole net: what its stages put out, and where its first and last activations are."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.errors import InputError
from resnet_jax.models import zoo

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)


def init(model, images=IMAGES):
    return model.lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct(images.shape, images.dtype), train=False
    )


def shapes(model, images=IMAGES, **kwargs):
    run = lambda v, x: model.apply(v, x, train=False, **kwargs)
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(run, init(model, images), images))


def test_lazy_initialisation_gives_the_numbers_of_init():
    model = zoo.create("resnet-8", width=4)
    images = IMAGES[:, :8, :8]
    eager = model.init(jax.random.key(0), images, train=False)
    jax.tree.map(np.testing.assert_array_equal, init(model, images), eager)


@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_images_that_nobody_has_normalised_are_refused(kind):
    """As `datasets.load` gives them, a network would take them for some, and answer."""
    model = zoo.create("resnet-8", width=4)
    images = np.zeros((1, 8, 8, 3), kind)
    with pytest.raises(InputError, match=f"^images of {kind}: a network takes them normalised"):
        jax.eval_shape(model.apply, init(model, IMAGES[:1, :8, :8]), images)


@pytest.mark.parametrize("name", ["plain-20", "resnet-20", "preact-resnet-20"])
def test_cifar_stages_halve_the_map_and_double_the_channels(name):
    model = zoo.create(name, num_classes=7)
    assert shapes(model, features=True) == ((2, 64, 64, 16), (2, 32, 32, 32), (2, 16, 16, 64))
    assert shapes(model) == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expansion"), [("resnet-18", 1), ("resnet-50", 4)])
def test_imagenet_stages_have_strides_4_to_32(name, expansion):
    widths = [64, 128, 256, 512]
    assert shapes(zoo.create(name), features=True) == tuple(
        (2, 16 // 2**i, 16 // 2**i, width * expansion) for i, width in enumerate(widths)
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (1, 3)])
def test_pooling_and_its_gradient_are_those_of_linen(height, width):
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(size=(2, height, width, 3)).astype(np.float32), 0)  # with ties
    linens = lambda x: nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1)] * 2)
    pooled, pull = jax.vjp(zoo.create("resnet-18").pool, x)
    expected, expected_pull = jax.vjp(linens, x)
    np.testing.assert_array_equal(pooled, expected)
    gradient = random.normal(size=pooled.shape).astype(np.float32)
    np.testing.assert_allclose(pull(gradient)[0], expected_pull(gradient)[0], rtol=1e-6)


IN_LOOPS = {
    "plain-20": {"norm": "none"},
    "resnet-29": {"block": "bottleneck", "order": "full_preact"},
    "resnet-20": {"option": "C"},
    "plain-11": {"parameterization": "dirac", "block": "one_layer"},
}


def looped(name, **axes):
    return zoo.create(name, width=8, bn_group_size=None, **IN_LOOPS[name], **axes)


@partial(jax.jit, static_argnums=0)
def learn(model, variables, images):
    """Logits, and the loss, its gradient and new statistics of a step of training."""

    def loss(params):
        found = {**variables, "params": params}
        logits, updates = model.apply(found, images, train=True, mutable=["batch_stats"])
        return (logits**2).mean(), updates

    logits = model.apply(variables, images)
    return logits, jax.value_and_grad(loss, has_aux=True)(variables["params"])


@cache
def one_by_one(name):
    model, images = looped(name), IMAGES[:, :8, :8]
    variables = init(model, images)
    return variables, learn(model, variables, images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "remat"),
    [
        ("plain-11", "blocks"),
        ("resnet-29", "blocks"),
        *(
            pytest.param(name, remat, marks=pytest.mark.weekly)
            for name, remat in (
                *((name, "none") for name in IN_LOOPS),
                *(
                    ("plain-20", "activations"),
                    ("resnet-29", "activations"),
                    ("resnet-20", "blocks"),
                ),
            )
        ),
    ],
)
def test_units_in_a_loop_compute_the_same(name, remat):
    model, images = looped(name, remat=remat, scan_blocks=True), IMAGES[:, :8, :8]
    variables, expected = one_by_one(name)
    jax.tree.map(np.testing.assert_array_equal, init(model, images), variables)
    found = learn(model, variables, images)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    logits, expected_logits = found[0], expected[0]
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-6)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


def test_a_loops_program_does_not_grow_with_depth():
    count = lambda name, scan: str(
        jax.make_jaxpr(lambda v, x: zoo.create(name, scan_blocks=scan).apply(v, x))(
            init(zoo.create(name), IMAGES[:, :8, :8]), IMAGES[:, :8, :8]
        )
    ).count("conv_general_dilated[")
    assert count("resnet-20", True) == count("resnet-56", True) < count("resnet-20", False)


def test_units_that_drop_out_are_not_in_a_loop():
    one_by_one, looped = (
        zoo.create("resnet-20", width=4, shortcut="dropout", bn_group_size=None, scan_blocks=scan)
        for scan in (False, True)
    )
    images = IMAGES[:, :8, :8]
    variables = init(one_by_one, images)
    forward = lambda model: model.apply(
        variables, images, True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"]
    )[0]
    np.testing.assert_array_equal(forward(looped), forward(one_by_one))


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("downsample_in", ["1x1", "3x3"])
def test_dilated_net_computes_the_strided_nets_values_and_those_between(
    output_stride, downsample_in
):
    strided = zoo.create("resnet-50", width=4, downsample_in=downsample_in)
    dilated = zoo.create(
        "resnet-50", width=4, downsample_in=downsample_in, output_stride=output_stride
    )
    variables = init(strided)
    forward = lambda model: jax.jit(lambda v, x: model.apply(v, x, train=False, features=True)[-1])(
        variables, IMAGES
    )
    coarse, fine = forward(strided), forward(dilated)
    step = 32 // output_stride
    assert fine.shape[1] == step * coarse.shape[1]
    np.testing.assert_allclose(fine[:, ::step, ::step], coarse, atol=1e-3 * coarse.max())


@pytest.mark.slow
def test_output_stride_8_works_for_basic_units():
    strided = zoo.create("resnet-18", width=4)
    dilated = zoo.create("resnet-18", width=4, output_stride=8)
    variables = init(strided)
    coarse = strided.apply(variables, IMAGES, features=True)[-1]
    fine = dilated.apply(variables, IMAGES, features=True)[-1]
    np.testing.assert_allclose(fine[:, ::4, ::4], coarse, atol=1e-3 * coarse.max())


def test_preactivation_net_activates_after_its_stem_and_after_its_last_addition():
    params = init(zoo.create("preact-resnet-8", width=4))["params"]
    assert {"stem_norm", "final_norm"} <= set(params)
    assert "before_norm" not in params["stage1_unit1"]  # The stem's activation is the first's.
    assert all("before_norm" in params[f"stage{s}_unit1"] for s in (2, 3))


def test_net_of_the_original_order_ends_with_its_last_unit():
    assert "final_norm" not in init(zoo.create("resnet-8", width=4))["params"]


@pytest.mark.parametrize("order", ["full_preact", "relu_only_preact"])
def test_last_features_of_a_preactivation_net_are_activated(order):
    model = zoo.create("preact-resnet-8", width=4, order=order)
    images = IMAGES[:, :8, :8]
    outputs = model.apply(init(model, images), images, features=True)
    assert outputs[0].min() < 0
    assert outputs[-1].min() >= 0


def test_residual_net_with_zero_branches_is_the_identity_between_its_stem_and_its_projections():
    model = zoo.create("resnet-8", width=4, zero_init_last=True, option="B")
    images = IMAGES[:, :8, :8]
    variables = init(model, images)
    first, *_ = model.apply(variables, images, features=True)
    params = variables["params"]
    stem = jax.lax.conv_general_dilated(
        images,
        params["stem"]["kernel"],
        (1, 1),
        [(1, 1)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(first, np.maximum(stem / np.sqrt(1 + 1e-5), 0), atol=1e-5)


def test_bfloat16_net_keeps_parameters_and_logits_in_float32():
    model = zoo.create("resnet-8", width=4, dtype="bfloat16")
    images = IMAGES[:, :8, :8]
    variables = init(model, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    run = lambda v, x, **kwargs: model.apply(v, x, train=False, **kwargs)
    assert run(variables, images).dtype == jnp.float32
    assert run(variables, images, features=True)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "axes", "kind"),
    [
        ("resnet-8", {"norm": "none"}, "bias"),
        *(
            pytest.param(*case, "value", marks=pytest.mark.slow)
            for case in (
                ("resnet-8", {"initialization": "skipinit"}),
                ("plain-8", {"parameterization": "dirac"}),
            )
        ),
    ],
)
def test_bfloat16_net_sums_gradients_in_float32(name, axes, kind):
    """Where a parameter meets all positions; the rest of the distance is the activations'."""
    images = np.random.default_rng(1).normal(size=(64, 32, 32, 3)).astype(np.float32)

    def gradient(dtype):
        model = zoo.create(name, width=4, dtype=dtype, **axes)
        variables = init(model, images[:1])
        # Apart from zeros, behind which others would have no gradient.
        params = jax.tree.map(lambda leaf: leaf + 0.3 * (leaf.ndim == 0), variables["params"])

        def loss(params):
            logits, _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return nn.log_softmax(logits)[:, 0].mean()

        leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
        found = [leaf.ravel() for path, leaf in leaves if path[-1].key == kind]
        return np.concatenate(found[:-1] if kind == "bias" else found)

    wanted = gradient("float32")
    distance = np.linalg.norm(gradient("bfloat16") - wanted) / np.linalg.norm(wanted)
    assert distance < 0.1
