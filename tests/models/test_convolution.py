"""The weight gradient in parts is that of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from resnet_jax.models import convolution

SPATIAL = {"padding": [(1, 1), (1, 1)], "dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.fixture
def on_one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def gradients(conv, x, kernel, stride):
    loss = lambda x, kernel: jnp.sin(conv(x, kernel, (stride, stride), **SPATIAL)).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradient_in_parts_equals_the_whole(stride, on_one_device, monkeypatch):
    monkeypatch.setattr(convolution, "PART", 2**13)
    random = np.random.default_rng(0)
    x = random.standard_normal((32, 8, 8, 4), np.float32)
    kernel = random.standard_normal((3, 3, 4, 6), np.float32)
    expected, expected_grads = gradients(lax.conv_general_dilated, x, kernel, stride)
    value, grads = gradients(convolution.conv_general_dilated, x, kernel, stride)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(grads[0], expected_grads[0])
    np.testing.assert_allclose(grads[1], expected_grads[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "devices", "parts"),
    [(64, 1, 4), (128, 1, 8), (128, 2, 8), (128, 64, 2), (128, 128, 1), (6, 1, 1), (1, 1, 1)],
)
def test_parts_fit_the_cache_and_divide_each_devices_share(batch, devices, parts, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x = jax.ShapeDtypeStruct((batch, 32, 32, 16), jnp.float32)
    assert convolution._num_parts(x, x) == parts


def test_accelerators_keep_one_gradient(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jax.ShapeDtypeStruct((128, 32, 32, 16), jnp.float32)
    assert convolution._num_parts(x, x) == 1
