"""Convolution whose gradients XLA:CPU computes fast."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PART = 2**21
"""Bytes of images and gradients in one part, summed over the devices: about one core's cache."""


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC and HWIO, ungrouped; on the CPU computed otherwise.

    - With a 1×1 kernel and no padding it is a product of matrices, and its gradients are too.
    - XLA:CPU has fast routines for convolutions of this layout alone. Outside of loops it brings
      others into it; inside, the gradients that JAX derives run twenty to two hundred times
      slower. So they are laid out here.
    - The kernel's gradient is a sum over parts of the batch. In one convolution it is a sum over
      the whole batch, at a third of the rate of the forward pass where images and gradients
      outgrow the cache.

    The results differ by rounding alone. Reverse-mode differentiation only.
    """

    def convolve(x, kernel, layout):
        return lax.conv_general_dilated(
            x, kernel, strides, padding, **{**options, "dimension_numbers": layout}
        )

    plain = functools.partial(convolve, layout=("NHWC", "HWIO", "NHWC"))
    if jax.default_backend() != "cpu":
        return plain(x, kernel)
    if kernel.shape[:2] == (1, 1) and not np.any(padding):
        return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]

    def backward(saved, gradient):
        x, kernel = saved
        turned = kernel.swapaxes(2, 3)
        transpose = jax.linear_transpose(lambda x: convolve(x, turned, ("NHWC", "HWOI", "NHWC")), x)
        return transpose(gradient)[0], _kernel_gradient(convolve, x, kernel, gradient)

    own = jax.custom_vjp(plain)
    own.defvjp(lambda x, kernel: (plain(x, kernel), (x, kernel)), backward)
    return own(x, kernel)


def _kernel_gradient(convolve, x, kernel, gradient):
    """[height, width, inputs, outputs]; the parts are summed in float32."""
    height, width, inputs, outputs = kernel.shape
    turned = jax.ShapeDtypeStruct((inputs, height, width, outputs), kernel.dtype)
    parts = _num_parts(x, gradient)
    total = jnp.zeros(turned.shape, jnp.float32)
    for part in range(parts):
        # Every so manyth example, so that no part lies on one device alone.
        images, gradients = (a.reshape(-1, parts, *a.shape[1:])[:, part] for a in (x, gradient))
        images = images.transpose(3, 1, 2, 0)
        transpose = jax.linear_transpose(
            lambda kernel, images=images: convolve(images, kernel, ("CHWN", "IHWO", "HWNC")), turned
        )
        total += transpose(gradients.transpose(1, 2, 0, 3))[0]
    return total.transpose(1, 2, 0, 3).astype(kernel.dtype)


def _num_parts(x, out) -> int:
    """A power of two that divides the batch and each device's share of it."""
    size = sum(a.dtype.itemsize * math.prod(a.shape) for a in (x, out))
    batch, share = x.shape[0], x.shape[0] // jax.device_count()
    parts = 1
    while parts * PART < size and share and math.gcd(batch, share) % (2 * parts) == 0:
        parts *= 2
    return parts
