"""Initial weights."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from resnet_jax.models.architecture import BLOCKS, Architecture

_BLOCK = 2**16


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan-in (He et al. 2015, "Delving Deep into Rectifiers", eq. 10).

    Args:
      key: a PRNG key.
      shape: of a kernel, [..., inputs, outputs]; the fan-in is all but the last axis.

    The numbers are drawn in blocks of one size: XLA takes about half a second to compile the
    generator for each new shape, and a net has ten shapes.
    """
    size = math.prod(shape)
    blocks = [_normal_block(key, i) for i in range(math.ceil(size / _BLOCK))]
    normal = jnp.concatenate(blocks)[:size].reshape(shape)
    return (normal * math.sqrt(2.0 * shape[-1] / size)).astype(dtype)


@jax.jit
def _normal_block(key: jax.Array, index: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, index), (_BLOCK,))


def delta_orthogonal(
    key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, *, gain: float = 1.0
) -> jax.Array:
    """`gain` times an orthogonal matrix at the kernel's centre, zeros around it (Xiao et al. 2018).

    Where inputs and outputs differ in number, the matrix has orthonormal rows or columns. For
    kernels [height, width, inputs, outputs] of odd height and width, and [inputs, outputs].
    """
    matrix = jax.nn.initializers.orthogonal(gain)(key, shape[-2:], dtype)
    centre = tuple(size // 2 for size in shape[:-2])
    return jnp.zeros(shape, dtype).at[centre].set(matrix)


def scaled_he_normal(
    key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, *, factor: float
) -> jax.Array:
    return factor * he_normal(key, shape, dtype)


def kernel_init(architecture: Architecture, role: str) -> Callable:
    """The initialiser of a kernel by its place in the net.

    Args:
      role: "branch" or, for the last convolution of a unit's branch, "branch_end"; "classifier";
        "outside" for stem, projections and gates.

    - "he_normal" (v1 §3.4) is the same everywhere.
    - "delta_orthogonal" too; its gain is √2 for ReLU, which keeps the variance as He's does, and 1
      for the others. Only at gain 1 with tanh or linear layers are all singular values near 1.
    - "fixup" (Zhang et al. 2019, §3): a branch's last convolution and the classifier start at 0,
      its others are He's times L^(−1/(2m−2)), with L branches of m convolutions. The scalar
      biases and multipliers of the paper are left out; convolutions here have channel biases.
    """
    if architecture.initialization == "delta_orthogonal":
        gain = math.sqrt(2) if architecture.activation == "relu" else 1.0
        return functools.partial(delta_orthogonal, gain=gain)
    if architecture.initialization == "fixup":
        if role in ("branch_end", "classifier"):
            return jax.nn.initializers.zeros
        if role == "branch":
            layers = BLOCKS[architecture.block]
            factor = architecture.num_units ** (-1 / (2 * layers - 2))
            return functools.partial(scaled_he_normal, factor=factor)
    return he_normal
