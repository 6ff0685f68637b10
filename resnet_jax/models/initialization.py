"""Initial weights."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.models.architecture import BLOCKS, Architecture

_BLOCK = 2**16


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan-in (He et al. 2015, "Delving Deep into Rectifiers", eq. 10).

    Args:
      key: a PRNG key.
      shape: of a kernel, [..., inputs, outputs]; the fan-in is all but the last axis.

    The numbers are drawn in blocks of one size: XLA takes about half a second to compile the
    generator for each new shape, and a network has ten shapes.
    """
    size = math.prod(shape)
    blocks = [_normal_block(key, i) for i in range(math.ceil(size / _BLOCK))]
    normal = jnp.concatenate(blocks)[:size].reshape(shape)
    return (normal * math.sqrt(2.0 * shape[-1] / size)).astype(dtype)


def he_normal_fan_out(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """Normal with variance 2 / fan-out, which keeps the gradient's size (ibid., eq. 14)."""
    factor = math.sqrt(shape[-2] / shape[-1])
    return (factor * he_normal(key, shape)).astype(dtype)


@jax.jit
def _normal_block(key: jax.Array, index: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, index), (_BLOCK,))


def delta_orthogonal(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, *, gain: float = 1.0
) -> jax.Array:
    """`gain` times an orthogonal matrix at the kernel's centre, zeros around it (Xiao et al. 2018).

    Where inputs and outputs differ in number, the matrix has orthonormal rows or columns. For
    kernels [height, width, inputs, outputs] of odd height and width, and [inputs, outputs].
    """
    matrix = jax.nn.initializers.orthogonal(gain)(key, shape[-2:], dtype)
    centre = tuple(size // 2 for size in shape[:-2])
    return jnp.zeros(shape, dtype).at[centre].set(matrix)


def corrected_delta_orthogonal(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """`delta_orthogonal` that keeps the mean square of a channel, not of a pixel's channels.

    With more outputs than inputs its gain is √(outputs / inputs) (Martens et al. 2021, "scale-
    corrected uniform orthogonal").
    """
    inputs, outputs = shape[-2:]
    return delta_orthogonal(key, shape, dtype, gain=math.sqrt(max(outputs / inputs, 1.0)))


def looks_linear(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: Any = jnp.float32,
    *,
    mirror_inputs: bool = True,
    mirror_outputs: bool = True,
) -> jax.Array:
    """[[W, −W], [−W, W]], with which ReLU layers are together linear (Balduzzi et al. 2017).

    Half of the channels carry (z)₊ and half (−z)₊, of which the next kernel makes W z and −W z.
    The paper concatenates the two (CReLU); here the network has the mirrored channels itself, and
    so its usual number of parameters. W is delta-orthogonal.

    Args:
      mirror_inputs, mirror_outputs: not at a network's first, or last, layer. A number of channels
        that is mirrored is even.
    """
    inputs, outputs = shape[-2] // (1 + mirror_inputs), shape[-1] // (1 + mirror_outputs)
    kernel = delta_orthogonal(key, (*shape[:-2], inputs, outputs), dtype)
    if mirror_outputs:
        kernel = jnp.concatenate([kernel, -kernel], axis=-1)
    return jnp.concatenate([kernel, -kernel], axis=-2) if mirror_inputs else kernel


def kernel_init(architecture: Architecture, role: str) -> Callable:
    """The initialiser of a kernel by its place in the network.

    Args:
      role: "branch" or, for the last convolution of a block's branch, "branch_end"; "stem";
        "classifier"; "outside" for projections and gates.

    - "he_normal" (v1 §3.4) is the same everywhere, and "skipinit" has it, too.
    - "he_normal_fan_out" is that of the authors' release of v2 for convolutions; the classifier's
      is by fan-in.
    - "delta_orthogonal" is the same everywhere; its gain is √2 for ReLU, which keeps the variance
      as He's does, and 1 for the others. Only at gain 1 with tanh or linear layers are all singular
      values near 1. Tailored ReLUs take it scale-corrected, as their paper does.
    - "looks_linear": see the function.
    - "fixup" (Zhang et al. 2019, §3): a branch's last convolution and the classifier start at 0,
      its others are He's times L^(−1/(2m−2)), with L branches of m convolutions.
    """
    if architecture.initialization == "he_normal_fan_out" and role != "classifier":
        return he_normal_fan_out
    if architecture.initialization == "delta_orthogonal":
        if architecture.activation == "tailored_relu":
            return corrected_delta_orthogonal
        gain = math.sqrt(2) if architecture.activation == "relu" else 1.0
        return functools.partial(delta_orthogonal, gain=gain)
    if architecture.initialization == "looks_linear":
        return functools.partial(
            looks_linear, mirror_inputs=role != "stem", mirror_outputs=role != "classifier"
        )
    if architecture.initialization == "fixup":
        if role in ("branch_end", "classifier"):
            return jax.nn.initializers.zeros
        if role == "branch":
            layers = BLOCKS[architecture.block]
            factor = architecture.num_blocks ** (-1 / (2 * layers - 2))
            return lambda key, shape, dtype: factor * he_normal(key, shape, dtype)
    return he_normal
