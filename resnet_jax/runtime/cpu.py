"""What only XLA:CPU needs; on accelerators all of it is what JAX and XLA do by themselves.

- `conv_general_dilated`: convolutions whose gradients XLA:CPU computes fast;
- `max_pool`: a pooling whose gradient it computes fast;
- `fusion_barrier`: an end to fusion after each block;
- `onednn_flags`, for `resnet_jax.runtime.setup`.

What each of them gives is in docs/performance.md.
"""

import contextlib
import contextvars
import functools
import importlib.metadata
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

PART = 2**21
"""Bytes of images and gradients in one part, summed over the devices that share a batch: about one
core's cache."""

_ONEDNN = {
    "xla_cpu_use_onednn": "true",
    "xla_cpu_experimental_onednn_custom_call": "true",
}
_ONEDNN_PAYS = ((0, 12), (0, 13))  # jaxlib; XLA aborts at a flag that it does not know


_switched_off = contextvars.ContextVar("_switched_off", default=False)
_sharing = contextvars.ContextVar("_sharing", default=1)


@contextlib.contextmanager
def as_jax_has_it() -> Iterator[None]:
    """Within, what is traced is what JAX derives by itself, as on accelerators: for references."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


@contextlib.contextmanager
def batches_shared_by(devices: int) -> Iterator[None]:
    """Within, what is traced has each batch divided among so many devices; elsewhere on one."""
    token = _sharing.set(devices)
    try:
        yield
    finally:
        _sharing.reset(token)


def _is_needed() -> bool:
    return jax.default_backend() == "cpu" and not _switched_off.get()


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

    Args:
      x: [batch, height, width, inputs].
      kernel: [height, width, inputs, outputs].
      strides, padding, **options: as in `lax.conv_general_dilated`.
    """

    def convolve(x, kernel, layout):
        return lax.conv_general_dilated(
            x, kernel, strides, padding, **{**options, "dimension_numbers": layout}
        )

    plain = functools.partial(convolve, layout=("NHWC", "HWIO", "NHWC"))
    if not _is_needed():
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
    """[height, width, inputs, outputs]; the parts are summed in float32, or in float64 if it is."""
    height, width, inputs, outputs = kernel.shape
    turned = jax.ShapeDtypeStruct((inputs, height, width, outputs), kernel.dtype)
    parts = _num_parts(x, gradient)
    total = jnp.zeros(turned.shape, jnp.promote_types(kernel.dtype, jnp.float32))
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
    batch, share = x.shape[0], x.shape[0] // _sharing.get()
    parts = 1
    while parts * PART < size and share and math.gcd(batch, share) % (2 * parts) == 0:
        parts *= 2
    return parts


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of 3×3 places around every second one, padded by one place.

    XLA's own pooling, unless its gradient, select-and-scatter, will not do: on a CPU it takes ten
    times as long as that of the comparisons of nine shifted images that stand here for it, and
    XLA has none for GPUs that must compute deterministically. Value and gradient are the same.

    Args:
      x: [batch, height, width, channels].

    Returns:
      [batch, ⌈height/2⌉, ⌈width/2⌉, channels].
    """
    if not _is_needed() and not _must_be_deterministic():
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    shifted = [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return functools.reduce(lambda best, other: jnp.where(other > best, other, best), shifted)


def _must_be_deterministic() -> bool:
    """Whether XLA was told so, by `setup.prepare` or by the user."""
    names = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")
    on = {f"--{name}{value}" for name in names for value in ("", "=true", "=1")}
    return not on.isdisjoint(os.environ.get("XLA_FLAGS", "").split())


def fusion_barrier(x: jax.Array) -> jax.Array:
    """The same array, through which XLA:CPU does not fuse.

    After each block: else fusion recomputes the chain of additions block after block. On JAX 0.12
    a step of a 56-layer network took 2.2 times as long.
    """
    return lax.optimization_barrier(x) if _is_needed() else x


def onednn_flags() -> dict[str, str]:
    """XLA's flags for convolutions by oneDNN; none where that library does not pay."""
    return dict(_ONEDNN) if onednn_pays() else {}


def onednn_pays() -> bool:
    """Whether oneDNN is the faster library with this version of jaxlib, and XLA knows its flags."""
    return _ONEDNN_PAYS[0] <= _jaxlib_version() < _ONEDNN_PAYS[1]


def _jaxlib_version() -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
