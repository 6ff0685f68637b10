"""Trees of many units as one tree, for a loop over them, and back."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def stack(trees: Sequence[Any]) -> Any:
    """Trees of arrays [...] as one of arrays [len(trees), ...]. Reverse-mode only."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any, size: int) -> list[Any]:
    """The `size` trees of arrays [...] that lie in one of arrays [size, ...].

    Each by a number that XLA is kept from knowing: it compiles a slice at a known place for every
    such place, five milliseconds each, but slices at unknown places once. A net of 434 layers has
    over two thousand of them.
    """
    trees, number = [], jnp.int32(0)
    for _ in range(size):
        number = lax.optimization_barrier(number)
        take = lambda leaf, at=number: lax.dynamic_index_in_dim(leaf, at, keepdims=False)
        trees.append(jax.tree.map(take, tree))
        number += 1
    return trees


stack.defvjp(
    lambda trees: (stack(trees), len(trees)),
    lambda size, gradient: (unstack(gradient, size),),
)
