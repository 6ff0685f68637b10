"""The loss around a network's weights (Li et al. 2018, "Visualizing the Loss Landscape of Neural
Nets").
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.axes import Axes

from resnet_jax.errors import InputError
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import mean_over
from resnet_jax.studies.networks import Network
from resnet_jax.studies.study import Track, Tracker
from resnet_jax.studies.tables import by, percent, style
from resnet_jax.training.step import wrong

FITTED = 0.1
"""Training error at the weights: above it there is no minimum whose valley could be compared."""

_LEVELS = 12
_HIGHEST = 10.0  # above the lowest loss, in nats: what a contour shows at most


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

    Each filter (the weights of one output channel) is normal with the norm of the network's own
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
    xs: Sequence[float] | np.ndarray,
    ys: Sequence[float] | np.ndarray,
    track: Track = iter,
) -> Surface:
    """Evaluates the network, with its running statistics, at each point of a grid.

    Args:
      model, variables: the network.
      images: float [examples, height, width, channels], normalised.
      labels: int [examples].
      directions: two, shaped as the parameters; see `direction`.
      xs, ys: how far along each, in units of its length.
      track: shows progress over the points.
    """
    # The coordinates are arguments, so that the network is compiled once.
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
    return jnp.stack([losses.mean(), wrong(logits, labels).mean()])


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "train",
    points: int = 15,
    reach: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a point of the `points` × `points` grid, and one a checkpoint, by `kind`.

    `seed` is of the random directions.

    Raises:
      InputError: a grid without a middle or an extent.
    """
    if points < 3 or points % 2 == 0:
        raise InputError(f"points={points}: must be odd, so that the weights themselves are one")
    if reach <= 0:
        raise InputError(f"reach={reach}: must be above 0")
    half = points // 2
    grid = reach * np.arange(-half, half + 1) / half  # 0 exactly, unlike linspace's.
    rows = []
    for network in networks:
        images, labels = network.images(split, examples)
        about, variables = network.about(), network.ready(images)
        directions = tuple(direction(variables["params"], 2 * seed + axis) for axis in (0, 1))
        found = surface(
            network.model, variables, images, labels, directions, grid, grid,
            track=tracker(network.label),
        )  # fmt: skip
        rows += [
            {**about, "kind": "surface", "x": float(x), "y": float(y),
             "loss": float(found.loss[row, column]), "error": float(found.error[row, column])}
            for row, y in enumerate(grid) for column, x in enumerate(grid)
        ]  # fmt: skip
        steps = sorted({0, *network.steps})
        if len(steps) > 3:  # Three points are always in one plane.
            path = trajectory([network.at(step)["params"] for step in steps])
            rows += [
                {**about, "kind": "trajectory", "at_step": step, "x": float(x), "y": float(y),
                 "explained_x": float(path.explained[0]), "explained_y": float(path.explained[1])}
                for step, (x, y) in zip(steps, path.coordinates, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """A contour of each network's first seed beside the next, then slices and trajectories."""
    surfaces, ways = (table[table["kind"] == kind] for kind in ("surface", "trajectory"))
    levels = _levels(surfaces)
    found = [
        Panel(name, partial(_contour, own=own[own["seed"] == own["seed"].iloc[0]], levels=levels))
        for name, own in by(surfaces, "network")
    ]  # fmt: skip
    middle = surfaces[surfaces["y"] == 0]
    found.append(
        tables.line_panel("Slice along the first direction", middle, "x", "loss",
                          xlabel="distance", ylabel="loss", log=True)
    )  # fmt: skip
    if len(ways):
        found.append(Panel("Way of training", lambda axes: _trajectories(axes, ways, table)))
    return [found[start : start + 2] for start in range(0, len(found), 2)]


def summarize(table: pd.DataFrame) -> list[str]:
    """Loss at the weights, how soon it rises, and where it bends downwards; twins compared."""
    surfaces, ways = (table[table["kind"] == kind] for kind in ("surface", "trajectory"))
    sentences, valleys = [], {}
    for name, own in by(surfaces, "network"):
        grids = [_grid(part) for _, part in by(own, "seed")]
        xs = grids[0][0]
        step, centres = xs[1] - xs[0], [loss[len(loss) // 2, len(xs) // 2] for _, _, loss in grids]
        shares = [
            _area(loss, centre + 1.0) for (_, _, loss), centre in zip(grids, centres, strict=True)
        ]
        bends = float(np.mean([_nonconvex(loss) for _, _, loss in grids]))
        error = own[(own["x"] == 0) & (own["y"] == 0)]["error"].mean()
        valleys[name] = error, [share * (xs[-1] - xs[0]) ** 2 for share in shares]
        sentences.append(
            f"{name} (step {own['step'].max():,}, {tables.num_seeds(own)}): the loss is "
            f"{tables.mean(centres).text(number)} at the weights, and less than one nat above that "
            f"in {tables.mean(shares).percent} of the square that reaches {number(xs[-1])} "
            f"filter-normalised lengths; along a direction it curves downwards at {percent(bends)} "
            f"of the points {number(step)} apart."
        )
        whole = np.mean([np.isfinite(loss).mean() for _, _, loss in grids])
        if whole < 1:
            sentences.append(f"{percent(1 - whole)} of its points overflow.")
    for plain, twin in tables.twins(surfaces):
        sentences.append(_compare(twin, plain, valleys))
    for name, own in by(ways, "network"):
        walks = [held_of_random_walk(sorted(one["at_step"])) for _, one in by(own, "seed")]
        count, held = own["at_step"].nunique(), own.drop_duplicates("seed")
        sentences.append(
            f"Of the squared distances of {name}'s {count - 1} earlier weights from the last, "
            f"two directions hold {percent((held['explained_x'] + held['explained_y']).mean())}; "
            f"of a random walk at the same steps, {percent(float(np.mean(walks)))}."
        )
    return sentences


def held_of_random_walk(steps: Sequence[int]) -> float:
    """What two directions hold, by the same measure, of a random walk at these steps, expected.

    In many dimensions the inner products of its offsets from its end are, up to a factor,
    min(i, j), where i and j count the steps from there to the end.
    """
    to_end = steps[-1] - np.array(steps[:-1])
    values = np.linalg.eigvalsh(np.minimum.outer(to_end, to_end))
    return float(values[-2:].sum() / values.sum())


def _compare(name: str, other: str, valleys: dict[str, tuple[float, list[float]]]) -> str:
    for one, rival in ((name, other), (other, name)):
        error = valleys[one][0]
        if error > FITTED:
            return (
                f"{one} has not fitted the images (error {percent(error)}): it has no valley that "
                f"{rival}'s could be compared with."
            )
    found = tables.ratio(valleys[name][1], valleys[other][1])
    if found is None:
        return (
            f"Whether {name}'s valley is wider than {other}'s is told from {tables.ENOUGH} seeds "
            "of each, and stays open."
        )
    times = f"(its area is ×{found.text('{:.2f}'.format)}, 95% interval)"
    if found.low > 1:
        return f"{name}'s valley is wider than {other}'s {times}."
    if found.high < 1:
        return f"{name}'s valley is narrower than {other}'s {times}."
    return f"Whether {name}'s valley is wider than {other}'s is undecided {times}."


def _grid(own: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    loss = own.pivot(index="y", columns="x", values="loss")
    return loss.columns.to_numpy(), loss.index.to_numpy(), loss.to_numpy(float)


def _area(loss: np.ndarray, below: float) -> float:
    """The share of points with a loss below; one that overflowed is not."""
    return float((np.nan_to_num(loss, nan=math.inf) < below).mean())


def _nonconvex(loss: np.ndarray) -> float:
    """The share of inner points, along both axes, where the second difference is negative."""
    with np.errstate(invalid="ignore"):
        bends = np.concatenate([np.diff(loss, 2, axis=axis).ravel() for axis in (0, 1)])
    return float((bends[np.isfinite(bends)] < 0).mean()) if np.isfinite(bends).any() else 0.0


def _levels(surfaces: pd.DataFrame) -> np.ndarray:
    """The same levels for all networks, evenly spaced in the logarithm."""
    losses = surfaces["loss"].to_numpy(float)
    losses = losses[np.isfinite(losses)]
    low = max(losses.min(), 1e-3)
    high = max(min(losses.max(), low + _HIGHEST), 1.2 * low)
    return np.geomspace(low, high, _LEVELS + 2)[1:-1]


def _contour(axes: Axes, own: pd.DataFrame, levels: np.ndarray) -> None:
    xs, ys, loss = _grid(own)
    shades = style.SERIES[1:6]
    drawn = axes.contour(
        xs, ys, np.nan_to_num(loss, nan=1e30, posinf=1e30), levels=levels,
        colors=[shades[i * len(shades) // len(levels)] for i in range(len(levels))], linewidths=1.1,
    )  # fmt: skip
    axes.clabel(drawn, levels[::3], fmt=number, fontsize=7)
    axes.plot(0, 0, "+", color=style.LIGHT["ink"], markersize=8)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")


def _trajectories(axes: Axes, ways: pd.DataFrame, table: pd.DataFrame) -> None:
    look, named = tables.looks(table), set()
    for (name, _), own in by(ways, "network", "seed"):
        # Each by the length of its own way: a network that was thrown far would hide the others.
        length = np.hypot(own["x"], own["y"]).max() or 1.0
        xs, ys = own["x"] / length, own["y"] / length
        axes.plot(xs, ys, ".-", color=look[name].colour, linewidth=1.2)
        if name not in named:
            axes.annotate(
                name, (xs.iloc[0], ys.iloc[0]), xytext=(4, 4), textcoords="offset points",
                fontsize=8, color=look[name].colour,
            )  # fmt: skip
        named.add(name)
    axes.plot(0, 0, "+", color=style.LIGHT["ink"], markersize=8)
    axes.set_xlabel("first principal direction, relative")
    axes.set_ylabel("second, relative")
