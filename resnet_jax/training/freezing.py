"""Parts of a net that training leaves as they are, for fine-tuning.

A frozen stem or stage is a fixed function: its weights get no update and no decay, and its batch
norms normalise by their running statistics, which stay. The part "batch_norm" is all batch norms
of the net: scales, biases and statistics.
"""

import contextlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import optax
from flax import linen as nn

from resnet_jax.errors import check_choice
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.batch_norm import BatchNorm

Path = tuple[str, ...]

BATCH_NORM = "batch_norm"


def parts(architecture: Architecture) -> tuple[str, ...]:
    """What of a net can be frozen. Its classifier cannot: that would leave nothing to learn."""
    stages = (f"stage{number}" for number in range(1, len(architecture.stage_sizes) + 1))
    return ("stem", *stages, *((BATCH_NORM,) if architecture.norm == "batch" else ()))


def parse(text: str | None, architecture: Architecture) -> frozenset[str]:
    """The parts named by "stem+stage1+batch_norm"; none for None.

    Raises:
      InputError: the net has no such part.
    """
    names = frozenset(text.split("+")) if text else frozenset()
    for name in sorted(names):
        check_choice("freeze", name, parts(architecture))
    return names


def is_frozen(path: Path, frozen: Collection[str]) -> bool:
    """Whether the variable or module at that path, such as ("stage1_unit2", "norm1"), is."""
    top = path[0]
    part = "stem" if top in ("stem", "stem_norm") else top.split("_")[0]
    return part in frozen or (BATCH_NORM in frozen and any("norm" in name for name in path))


def optimizer(
    whole: optax.GradientTransformation, frozen: Collection[str]
) -> optax.GradientTransformation:
    """`whole` for what is trained, and no update for the rest, of which it keeps no state."""
    if not frozen:
        return whole
    label = lambda path, _: "frozen" if is_frozen(path, frozen) else "trained"
    transformations = {"trained": whole, "frozen": optax.set_to_zero()}
    return optax.multi_transform(transformations, lambda params: _map(label, params))


def stop_gradients(params: Any, frozen: Collection[str]) -> Any:
    """The parameters; nothing is differentiated further back than the first that is trained."""
    if not frozen:
        return params
    return _map(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if is_frozen(path, frozen) else leaf, params
    )


def keep(old: Any, new: Any, frozen: Collection[str]) -> Any:
    """The `new` batch statistics, but the `old` ones, to the bit, of what is frozen."""
    if not frozen:
        return new
    return _map(lambda path, before, after: before if is_frozen(path, frozen) else after, old, new)


def as_fixed_functions(frozen: Collection[str]) -> contextlib.AbstractContextManager:
    """Within, frozen batch norms of a net that is traced run in evaluation mode."""
    if not frozen:
        return contextlib.nullcontext()

    def interceptor(call: Callable, args, kwargs, context):
        module = context.module
        if isinstance(module, BatchNorm) and is_frozen(module.path, frozen):
            return call(*args[:1], train=False)
        return call(*args, **kwargs)

    return nn.intercept_methods(interceptor)


def _map(function: Callable, *trees: Any) -> Any:
    """Maps over leaves with the names that lead to them first."""
    names = lambda path: tuple(entry.key for entry in path)
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(names(path), *leaves), *trees
    )
