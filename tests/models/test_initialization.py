"""Initial weights are what their papers define."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.initialization import delta_orthogonal, he_normal, kernel_init


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


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2**0.5), ("tanh", 1.0)])
def test_delta_orthogonal_net_has_such_kernels_everywhere(activation, gain):
    params = initial("plain-8", initialization="delta_orthogonal", activation=activation)
    kernel = np.asarray(params["stage2_unit1"]["conv2"]["kernel"])
    values = np.linalg.svd(kernel[1, 1], compute_uv=False)
    np.testing.assert_allclose(values, gain, rtol=1e-5)
    assert not kernel[0].any()


@pytest.mark.parametrize(("block", "power"), [("basic", -1 / 2), ("bottleneck", -1 / 4)])
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


@pytest.mark.parametrize("axes", [{}, {"norm": "none", "shortcut": "none"}])
def test_fixup_is_for_residual_nets_without_batch_norm(axes):
    with pytest.raises(InputError, match=r"initialization='fixup'.*norm='none'"):
        Architecture(stage_sizes=(1,), initialization="fixup", **axes)


def test_default_is_he_normal_everywhere():
    for role in ("branch", "branch_end", "outside", "classifier"):
        assert kernel_init(Architecture(stage_sizes=(1,)), role) is he_normal
