"""Initial weights."""

import math

import jax
import jax.numpy as jnp

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
