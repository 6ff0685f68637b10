"""What a trained net loses with its units (Veit et al. 2016, "Residual Networks Behave Like
Ensembles of Relatively Shallow Networks").
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.errors import InputError
from resnet_jax.models.resnet import ResidualBlock, ResNet, pad_shortcut
from resnet_jax.studies.batches import mean_over
from resnet_jax.studies.hooks import changed, changed_input, scale_gradient, tap

Track = Callable[[Iterable], Iterable]


class PathGradients(NamedTuple):
    """Of paths that go through `lengths` units and around all others.

    Attributes:
      lengths: [lengths].
      share_of_paths: how many of the 2^units paths are that long, a fraction [lengths].
      gradient: mean norm of the loss gradient that one such path brings to the first unit's input.
    """

    lengths: np.ndarray
    share_of_paths: np.ndarray
    gradient: np.ndarray


def error_with(
    model: ResNet, variables: Any, keep: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> float:
    """The error, a fraction, when only the units that `keep`, bool [units], says are there.

    A deleted unit's input passes on. In a residual net its branch is taken away; in a plain net,
    and where that changes shapes, option A's stride and zero channels stand for the unit.
    """
    keep = np.asarray(keep, bool)
    return float(mean_over(lambda *part: _error(model, variables, keep, *part), images, labels))


def delete_each(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    units: Sequence[int] | None = None,
    track: Track = iter,
) -> np.ndarray:
    """The error without each one of `units` (default all), [units]."""
    count = len(model.block_names)
    units = range(count) if units is None else units
    return np.array(
        [
            error_with(model, variables, np.arange(count) != unit, images, labels)
            for unit in track(units)
        ]
    )


def delete_random(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    counts: Sequence[int],
    repeats: int = 3,
    seed: int = 0,
    track: Track = iter,
) -> np.ndarray:
    """Errors without so many units chosen at random, [counts, repeats]."""
    draws = np.random.default_rng(seed)
    units = len(model.block_names)

    def error_without(count: int) -> float:
        keep = np.ones(units, bool)
        keep[draws.choice(units, count, replace=False)] = False
        return error_with(model, variables, keep, images, labels)

    return _repeated(error_without, counts, repeats, track)


def swap_random(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    counts: Sequence[int],
    repeats: int = 3,
    seed: int = 0,
    track: Track = iter,
) -> np.ndarray:
    """Errors after so many random swaps of two units of equal shape, [counts, repeats]."""
    draws = np.random.default_rng(seed)
    keep = np.ones(len(model.block_names), bool)

    def error_after(count: int) -> float:
        return error_with(model, swap(model, variables, count, draws), keep, images, labels)

    return _repeated(error_after, counts, repeats, track)


def swap(model: ResNet, variables: Any, count: int, draws: np.random.Generator) -> dict[str, Any]:
    """`variables` after `count` swaps of two units of a stage, all of them of different pairs.

    At most `num_pairs(model)` swaps. The first unit of a stage stays: it changes the shape, or,
    in pre-activation nets, is another kind of unit.
    """
    if count > num_pairs(model):
        raise InputError(f"count={count}: {num_pairs(model)} pairs of units have the same shape")
    stages = [
        [f"stage{stage}_unit{unit}" for unit in range(2, size + 1)]
        for stage, size in enumerate(model.architecture.stage_sizes, start=1)
    ]
    order = {name: name for name in model.block_names}
    pairs = [pair for names in stages for pair in itertools.combinations(names, 2)]
    # No pair twice: two swaps of one pair would undo each other.
    for place in draws.permutation(len(pairs))[:count]:
        a, b = pairs[place]
        order[a], order[b] = order[b], order[a]
    return {
        collection: {name: tree[order.get(name, name)] for name in tree}
        for collection, tree in variables.items()
    }


def num_pairs(model: ResNet) -> int:
    """Pairs of units that can stand in each other's place."""
    return sum(math.comb(size - 1, 2) for size in model.architecture.stage_sizes)


def path_gradients(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    lengths: Sequence[int],
    repeats: int = 4,
    seed: int = 0,
    track: Track = iter,
) -> PathGradients:
    """The gradient that paths of each length carry (Veit et al. §5, Figure 6).

    The forward pass is the whole net's. Backward, the gradient goes only through the branches of
    as many units as the path is long, chosen at random, and only through the shortcuts of the
    others.

    Raises:
      InputError: a plain net, which has one path only.
    """
    if model.architecture.shortcut == "none":
        raise InputError("shortcut='none': a plain net has one path only")
    draws = np.random.default_rng(seed)
    units = len(model.block_names)

    def gradient(length: int) -> float:
        through = np.zeros(units, np.float32)
        through[draws.choice(units, length, replace=False)] = 1.0
        return float(_path_gradient(model, variables, through, images, labels))

    norms = _repeated(gradient, lengths, repeats, track)
    log_share = [
        math.lgamma(units + 1) - math.lgamma(k + 1) - math.lgamma(units - k + 1) for k in lengths
    ]
    share = np.exp(np.array(log_share) - units * math.log(2))
    return PathGradients(np.array(lengths), share, norms.mean(1))


def _repeated(
    trial: Callable[[int], float], counts: Sequence[int], repeats: int, track: Track
) -> np.ndarray:
    """What `trial(count)` gives for each count, again and again: [counts, repeats]."""
    outcomes = [trial(count) for count in track(list(np.repeat(counts, repeats)))]
    return np.reshape(outcomes, (len(counts), repeats))


@partial(jax.jit, static_argnums=0)
def _error(model, variables, keep, images, labels) -> jax.Array:
    plain = model.architecture.shortcut == "none"

    def without(unit, x, y):
        kept = keep[model.block_names.index(unit.name)]
        instead = pad_shortcut(x, unit.stride, unit.channels) if plain else jnp.zeros_like(y)
        return jnp.where(kept, y, instead)

    with changed(ResidualBlock, "__call__" if plain else "residual_branch", without):
        logits = model.apply(variables, images, train=False)
    return (logits.argmax(-1) != labels).mean()


@partial(jax.jit, static_argnums=0)
def _path_gradient(model, variables, through, images, labels) -> jax.Array:
    share = lambda unit: through[model.block_names.index(unit.name)]
    branch = lambda unit, _, y: scale_gradient(y, share(unit))
    shortcut = lambda unit, _, y: scale_gradient(y, 1 - share(unit))
    gate = lambda unit, _, y: jax.lax.stop_gradient(y)  # A factor of paths, not a path.

    def loss(meter):
        """The mean loss; the gradient of `meter` is the norm of what arrives at the first unit."""
        metered = lambda unit, x: tap(x, meter) if unit.name == model.block_names[0] else x
        with (
            changed_input(ResidualBlock, "__call__", metered),
            changed(ResidualBlock, "residual_branch", branch),
            changed(ResidualBlock, "project_shortcut", shortcut),
            changed(ResidualBlock, "gate", gate),
        ):
            logits = model.apply(variables, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    return jax.grad(loss)(0.0) / math.sqrt(len(images))
