"""Initial weights are what their papers define."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.initialization import (
    corrected_delta_orthogonal,
    delta_orthogonal,
    he_normal,
    he_normal_fan_out,
    kernel_init,
)


def initial(name, **axes):
    model = zoo.create(name, width=4, **axes)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return model.lazy_init(jax.random.key(0), images, train=False)["params"]


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (3, 3, 4, 8), (1, 1, 8, 4), (5, 4)])
def test_delta_orthogonal_kernel_is_an_isometry_at_its_centre(shape):
    kernel = np.asarray(delta_orthogonal(jax.random.key(1), shape, gain=2.0))
    centre = kernel[tuple(size // 2 for size in shape[:-2])]
    np.testing.assert_allclose(
        np.linalg.svd(centre, compute_uv=False), 2.0 * np.ones(min(shape[-2:])), rtol=1e-5
    )
    assert np.count_nonzero(kernel) == np.count_nonzero(centre)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "gain"), [("relu", 2**0.5), ("tanh", 1.0)])
def test_delta_orthogonal_net_has_such_kernels_everywhere(activation, gain):
    params = initial("plain-8", initialization="delta_orthogonal", activation=activation)
    kernel = np.asarray(params["stage2_unit1"]["conv2"]["kernel"])
    values = np.linalg.svd(kernel[1, 1], compute_uv=False)
    np.testing.assert_allclose(values, gain, rtol=1e-5)
    assert not kernel[0].any()


@pytest.mark.parametrize("shape", [(3, 3, 4, 16), (3, 3, 16, 4), (3, 3, 8, 8)])
def test_scale_corrected_kernel_keeps_the_mean_square_of_a_channel(shape):
    kernel = np.asarray(corrected_delta_orthogonal(jax.random.key(1), shape))[1, 1]
    assert (kernel**2).sum() / shape[-1] == pytest.approx(1.0)  # of inputs of mean square 1


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_network_that_looks_linear_is_so_at_the_start(norm):
    model = zoo.create(
        "plain-14", width=4, norm=norm, bn_group_size=None, initialization="looks_linear"
    )
    first, second = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 3)).astype(np.float32)
    variables = model.lazy_init(jax.random.key(0), first, train=False)
    forward = jax.jit(lambda images: model.apply(variables, images))
    together = forward(2 * first - 3 * second)
    assert np.abs(together).max() > 1e-2
    np.testing.assert_allclose(together, 2 * forward(first) - 3 * forward(second), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("branch", "power"), [("basic", -1 / 2), ("bottleneck", -1 / 4)])
def test_fixup_scales_branches_by_their_number_and_ends_them_with_zeros(branch, power):
    depth = {"basic": 26, "bottleneck": 38}[branch]
    fixup = initial(f"resnet-{depth}", block=branch, norm="none", initialization="fixup")
    he = initial(f"resnet-{depth}", block=branch, norm="none")
    unit, last = "stage2_unit2", {"basic": "conv2", "bottleneck": "conv3"}[branch]
    np.testing.assert_allclose(
        fixup[unit]["conv1"]["kernel"], 12**power * he[unit]["conv1"]["kernel"], rtol=1e-6
    )
    assert not fixup[unit][last]["kernel"].any()
    assert not fixup["classifier"]["kernel"].any()
    np.testing.assert_array_equal(fixup["stem"]["kernel"], he["stem"]["kernel"])


def test_default_is_he_normal_everywhere():
    for role in ("branch", "branch_end", "outside", "classifier"):
        assert kernel_init(Architecture(stage_sizes=(1,)), role) is he_normal


def test_fan_out_draws_convolutions_by_their_outputs_and_the_classifier_by_its_inputs():
    architecture = Architecture(stage_sizes=(1,), initialization="he_normal_fan_out")
    for role in ("stem", "branch", "branch_end", "outside"):
        assert kernel_init(architecture, role) is he_normal_fan_out
    assert kernel_init(architecture, "classifier") is he_normal
    kernel = he_normal_fan_out(jax.random.key(0), (3, 3, 16, 64))
    assert float(kernel.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
