"""Convolution whose weight gradient is computed in parts that a CPU core's cache can hold."""

import math

import jax
import jax.numpy as jnp
from jax import lax

PART = 2**21
"""Bytes of images and gradients in one part, summed over the devices: about one core's cache."""


def conv_general_dilated(x: jax.Array, kernel: jax.Array, *args, **kwargs) -> jax.Array:
    """`lax.conv_general_dilated`; on the CPU its weight gradient is a sum over parts of the batch.

    XLA:CPU lays images and gradients out anew to make a convolution of the weight gradient, and
    that convolution sums over the whole batch: where the two outgrow the cache it runs at a
    third of the rate of the forward pass. The sum differs by rounding alone. Reverse-mode
    differentiation only.
    """
    plain = lambda x, kernel: lax.conv_general_dilated(x, kernel, *args, **kwargs)
    out = jax.eval_shape(plain, x, kernel)
    parts = _num_parts(x, out)
    if parts == 1:
        return plain(x, kernel)

    def forward(x, kernel):
        return plain(x, kernel), (x, kernel)

    def backward(saved, gradient):
        """The gradients of images and kernel; the kernel's is summed over parts, in float32."""
        x, kernel = saved
        (to_x,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(gradient)
        to_kernel = jnp.zeros(kernel.shape, jnp.float32)
        for part in range(parts):
            # Every so manyth example, so that no part lies on one device alone.
            own, own_gradient = (a.reshape(-1, parts, *a.shape[1:])[:, part] for a in (x, gradient))
            transpose = jax.linear_transpose(lambda kernel, own=own: plain(own, kernel), kernel)
            to_kernel += transpose(own_gradient)[0]
        return to_x, to_kernel.astype(kernel.dtype)

    convolve = jax.custom_vjp(plain)
    convolve.defvjp(forward, backward)
    return convolve(x, kernel)


def _num_parts(x, out) -> int:
    """A power of two that divides each device's share of the batch."""
    if jax.default_backend() != "cpu":
        return 1
    size = sum(a.dtype.itemsize * math.prod(a.shape) for a in (x, out))
    parts, share = 1, x.shape[0] // jax.device_count()
    while parts * PART < size and share and share % (2 * parts) == 0:
        parts *= 2
    return parts
