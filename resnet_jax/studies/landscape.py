"""The loss around a net's weights (Li et al. 2018, "Visualizing the Loss Landscape of Neural
Nets").
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.models.resnet import ResNet
from resnet_jax.studies.batches import mean_over

Track = Callable[[Iterable], Iterable]


class Surface(NamedTuple):
    """Losses and errors (fractions) at `centre + x·first + y·second`, arrays of [ys, xs]."""

    xs: np.ndarray
    ys: np.ndarray
    loss: np.ndarray
    error: np.ndarray


class Trajectory(NamedTuple):
    """Weights over training, seen from the last ones.

    Attributes:
      coordinates: [points, 2], along the two principal directions.
      explained: the share of the squared distances that each direction holds, [2].
    """

    coordinates: np.ndarray
    explained: np.ndarray


def direction(params: Any, seed: int) -> Any:
    """A random direction, filter-normalised (Li et al. §4), shaped as `params`.

    Each filter (the weights of one output channel) is normal with the norm of the net's own
    filter. Biases and batch norm's parameters do not move.
    """
    draws = np.random.default_rng(seed)

    def filters(path, weights):
        weights = np.asarray(weights, np.float32)
        if path[-1].key != "kernel":
            return np.zeros_like(weights)
        random = draws.standard_normal(weights.shape).astype(np.float32)
        axes = tuple(range(weights.ndim - 1))
        norm = lambda array: np.sqrt((array**2).sum(axes))
        return random * (norm(weights) / norm(random))

    return jax.tree_util.tree_map_with_path(filters, params)


def surface(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    directions: tuple[Any, Any],
    xs: Sequence[float],
    ys: Sequence[float],
    track: Track = iter,
) -> Surface:
    """Evaluates the net, with its running statistics, at each point of a grid.

    The net is compiled once: the coordinates are arguments.
    """
    variables, directions = jax.device_put((variables, directions))  # Once, not at every point.
    values = []
    for y, x in track([(y, x) for y in ys for x in xs]):
        at = jnp.array([x, y], jnp.float32)
        values.append(
            mean_over(lambda *part, at=at: _at(model, variables, directions, at, *part),
                      images, labels)
        )  # fmt: skip
    grid = np.reshape(values, (len(ys), len(xs), 2))
    return Surface(np.array(xs), np.array(ys), grid[..., 0], grid[..., 1])


def trajectory(weights: Sequence[Any]) -> Trajectory:
    """Projects kernels over training on the principal directions of their own differences.

    The last of `weights` (trees of parameters) is the origin. Works on the matrix of inner
    products: memory is that of the weights given.

    Raises:
      ValueError: fewer than three points span no plane.
    """
    if len(weights) < 3:
        raise ValueError(f"{len(weights)} points of a trajectory span no plane")
    vectors = [_kernels(tree) for tree in weights]
    offsets = [vector - vectors[-1] for vector in vectors[:-1]]
    products = np.array([[float(a @ b) for b in offsets] for a in offsets])
    values, axes = np.linalg.eigh(products)
    order = np.argsort(values)[::-1][:2]
    coordinates = axes[:, order] * np.sqrt(np.maximum(values[order], 0.0))
    # A direction's sign is free: training starts on the positive side.
    coordinates = coordinates * np.where(coordinates[0] < 0, -1.0, 1.0)
    return Trajectory(
        np.vstack([coordinates, np.zeros(2)]), values[order] / max(values.sum(), 1e-30)
    )


def _kernels(params: Any) -> np.ndarray:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return np.concatenate(
        [np.asarray(leaf, np.float64).ravel() for path, leaf in leaves if path[-1].key == "kernel"]
    )


@partial(jax.jit, static_argnums=0)
def _at(model, variables, directions, at, images, labels) -> jax.Array:
    """[2], loss and error."""
    move = lambda w, a, b: w + at[0] * a + at[1] * b
    params = jax.tree.map(move, variables["params"], *directions)
    logits = model.apply({**variables, "params": params}, images, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.stack([losses.mean(), (logits.argmax(-1) != labels).mean()])
