"""The variables of blocks that are alike as one entry, for a scan over them, and back."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ScannedBlocks = Mapping[str, Sequence[str]]
"""The name of each loop and those of its blocks, in their order."""


def pack(tree: Any, loops: ScannedBlocks) -> Any:
    """A tree, such as a training state, with one entry for the blocks of a loop.

    In every dict of blocks, such as that of parameters, arrays [...] of the blocks become arrays
    [blocks, ...] of the loop.
    """

    def merge(entries):
        blocks = {name for names in loops.values() for name in names}
        others = {name: entry for name, entry in entries.items() if name not in blocks}
        return others | {
            loop: stack([entries[name] for name in names]) for loop, names in loops.items()
        }

    return _map_dicts(merge, tree, {names[0] for names in loops.values()})


def unpack(tree: Any, loops: ScannedBlocks) -> Any:
    """The inverse of `pack`."""

    def part(entries):
        blocks: dict[str, Any] = {}
        for loop, names in loops.items():
            blocks |= dict(zip(names, unstack(entries[loop], len(names)), strict=True))
        return {name: entry for name, entry in entries.items() if name not in loops} | blocks

    return _map_dicts(part, tree, set(loops))


def _map_dicts(function: Callable, tree: Any, names: set[str]) -> Any:
    """Maps the dicts in a tree that have one of the names."""
    chosen = lambda node: isinstance(node, dict) and not names.isdisjoint(node)
    return jax.tree.map(lambda node: function(node) if chosen(node) else node, tree, is_leaf=chosen)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of arrays [...] as one of arrays [len(trees), ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any, size: int) -> list[Any]:
    """The `size` trees of arrays [...] that lie in one of arrays [size, ...].

    Each by a number that XLA is kept from knowing: it compiles a slice at a known place for every
    such place, five milliseconds each, but slices at unknown places once. A network of 1202 layers
    has ten thousand of them.
    """
    tree = lax.optimization_barrier(tree)  # Else what computes it is fused into every slice.
    trees, number = [], jnp.int32(0)
    for _ in range(size):
        number = lax.optimization_barrier(number)
        take = partial(
            lax.dynamic_index_in_dim, index=number, keepdims=False, allow_negative_indices=False
        )
        trees.append(jax.tree.map(take, tree))
        number += 1
    return trees
