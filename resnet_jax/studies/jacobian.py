"""Singular values of the input–output Jacobian along the depth of a network (Saxe et al. 2014,
Pennington et al. 2017, Xiao et al. 2018).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.sparse.linalg import LinearOperator, svds

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import BLOCKS
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import block_output, double_precision
from resnet_jax.studies.networks import Network, expand
from resnet_jax.studies.study import Track, Tracker
from resnet_jax.studies.tables import by, percent

EXACT_UP_TO = 1024  # input numbers
ISOMETRY = 2.0  # times: within this of each other, singular values count as equal
_AT_ONCE = 64  # directions


class Spectrum(NamedTuple):
    """Of the Jacobian of one block's output with respect to the image.

    Attributes:
      block: its place, from 0.
      values: singular values in falling order; all of them, or the largest.
      rms: root mean square over all directions of the input.
      exact: whether `values` are all.
    """

    block: int
    values: np.ndarray
    rms: float
    exact: bool


def spectra(
    model: ResNet,
    variables: Any,
    image: np.ndarray,
    blocks: Sequence[int],
    largest: int = 6,
    seed: int = 0,
    track: Track = iter,
) -> list[Spectrum]:
    """Singular values of ∂(output of a block) / ∂(image), for each of `blocks`, in float64.

    In float32 values below 10⁻⁷ of the largest would be rounding. Exact for images of at most
    `EXACT_UP_TO` numbers: the whole matrix is computed. For others the `largest` values come from
    ARPACK's Lanczos iteration, and the root mean square from 64 random directions (Hutchinson).

    Args:
      model: runs with its running statistics.
      variables: its parameters and statistics.
      image: [height, width, channels].
      blocks: places of blocks, from 0.
      largest: how many values of a large image.
      seed: of the random directions.
      track: tells of the loop.
    """
    blocks, image = tuple(int(block) for block in blocks), np.asarray(image, np.float64)
    with double_precision(model, variables) as (model, variables):
        if image.size <= EXACT_UP_TO:
            return _exact(model, variables, image, blocks, track)
        draws = np.random.default_rng(seed).standard_normal((_AT_ONCE, *image.shape))
        pushed = _push(model, variables, image, draws, blocks)
        squares = (draws**2).sum()
        found = []
        for place, block in track(list(enumerate(blocks))):
            rms = float(np.sqrt((np.asarray(pushed[place]) ** 2).sum() / squares))
            values = _largest(model, variables, image, blocks, place, largest, seed)
            found.append(Spectrum(block, values, rms, exact=False))
        return found


def _exact(model, variables, image, blocks, track) -> list[Spectrum]:
    basis = np.eye(image.size)
    basis = np.pad(basis, ((0, -image.size % _AT_ONCE), (0, 0)))  # One shape compiles once.
    parts = []
    for part in track(list(np.split(basis, len(basis) // _AT_ONCE))):
        tangents = part.reshape(-1, *image.shape)
        parts.append(jax.device_get(_push(model, variables, image, tangents, blocks)))
    found = []
    for place, block in enumerate(blocks):
        columns = np.concatenate([part[place] for part in parts])[: image.size]
        values = np.linalg.svd(columns, compute_uv=False)
        rms = float(np.sqrt((values**2).sum() / image.size))
        found.append(Spectrum(block, values, rms, exact=True))
    return found


def _largest(model, variables, image, blocks, place, count, seed) -> np.ndarray:
    outputs = jax.eval_shape(partial(_outputs, model, variables, blocks), image)
    shapes = [output.shape for output in outputs]

    def forward(vector):
        tangents = vector.reshape(1, *image.shape)
        return np.asarray(_push(model, variables, image, tangents, blocks)[place][0])

    def backward(vector):
        cotangents = tuple(
            vector.reshape(shape) if index == place else np.zeros(shape)
            for index, shape in enumerate(shapes)
        )
        return np.asarray(_pull(model, variables, image, cotangents, blocks)).ravel()

    size = int(np.prod(shapes[place]))
    operator = LinearOperator(
        (size, image.size), matvec=forward, rmatvec=backward, dtype=np.float64
    )
    start = np.random.default_rng(seed).standard_normal(min(operator.shape))
    values = svds(operator, k=count, return_singular_vectors=False, v0=start, tol=1e-3)
    return np.sort(values)[::-1]


def _outputs(model, variables, blocks, image) -> tuple[jax.Array, ...]:
    wanted = {model.block_names[block]: place for place, block in enumerate(blocks)}
    found: list[Any] = [None] * len(blocks)

    def seen(block, _, y):
        if block.name in wanted:
            found[wanted[block.name]] = y[0]
        return y

    with block_output(seen):
        model.apply(variables, image[None], train=False)
    return tuple(found)


@partial(jax.jit, static_argnums=(0, 4))
def _push(model, variables, image, tangents, blocks) -> tuple[jax.Array, ...]:
    """Each tangent [n, height, width, channels] through the Jacobians: [n, outputs] a block."""
    _, push = jax.linearize(partial(_outputs, model, variables, blocks), jnp.asarray(image))
    return tuple(out.reshape(len(tangents), -1) for out in jax.vmap(push)(tangents))


@partial(jax.jit, static_argnums=(0, 4))
def _pull(model, variables, image, cotangents, blocks) -> jax.Array:
    _, pull = jax.vjp(partial(_outputs, model, variables, blocks), jnp.asarray(image))
    return pull(cotangents)[0]


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    places: int = 8,
    largest: int = 6,
    seeds: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a singular value, at the split's first image alone, after `places` blocks, 1 the last.

    `examples` images give an untrained network its batch-norm statistics; there are `seeds` of it.
    """
    if places < 1:
        raise InputError(f"places={places}: give at least 1")
    rows = []
    for network in expand(networks, seeds):
        images, _ = network.images(split, examples)
        net = network.model.architecture
        last = net.num_blocks - 1
        found = spectra(
            network.model,
            network.ready(images),
            images[0],
            tables.evenly_spaced(net.num_blocks, places) if places > 1 else [last],
            largest,
            seed,
            tracker(network.label),
        )
        layers = BLOCKS[net.block]
        rows += [
            {**network.about(), "layer": 1 + layers * (spectrum.block + 1), "place": place,
             "value": float(value), "rms": spectrum.rms, "exact": int(spectrum.exact)}
            for spectrum in found for place, value in enumerate(spectrum.values, 1)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """The size of a random direction and of the largest against depth; the last spectrum."""
    first = table[table["place"] == 1]
    deepest = pd.concat(map(_deepest, (own for _, own in by(table, "network"))))
    spectrum = deepest[deepest["value"] > _resolution(deepest)]
    how = {"ylabel": "singular value", "log": True}
    return [
        [
            tables.line_panel("Against depth", first, "layer", "value", xlabel="layer",
                              beside="rms", **how),
            tables.line_panel("After the last block", spectrum, "place", "value", xlabel="place",
                              **how),
        ]
    ]  # fmt: skip


def summarize(table: pd.DataFrame) -> list[str]:
    """How each network's singular values go with depth, and how far they are apart at its end.

    At other images they may be many times others: the intervals are over seeds.
    """
    return [_sentence(name, own) for name, own in by(table, "network")]


def _sentence(name: str, own: pd.DataFrame) -> str:
    first, last = own[own["layer"] == own["layer"].iloc[0]], _deepest(own)
    shallow, deep = int(first["layer"].iloc[0]), int(last["layer"].iloc[0])
    where = f"{name} (step {own['step'].max():,}, {tables.num_seeds(own)}, at one image)"
    sizes = [part.groupby("seed", sort=False)["rms"].first() for part in (first, last)]
    if not all((size > 0).all() for size in sizes):
        return f"{where}: nothing of the input arrives; all singular values are 0."
    before, after = map(tables.geometric_mean, sizes)
    a_layer = (after.mean / before.mean) ** (1 / (deep - shallow)) if deep > shallow else 1.0
    text = (
        f"{where}: the root mean square of the singular values goes from {before.text(number)} "
        f"after {shallow} layers to {after.text(number)} after {deep}, ×{a_layer:.3g} a layer"
    )
    if not last["exact"].all():
        largest = tables.geometric_mean(last[last["place"] == 1]["value"])
        return f"{text}; the largest is {largest.text(number)}."
    values = last[last["value"] > _resolution(last)]
    spans = [part.max() / part.min() for _, part in values.groupby("seed")["value"]]
    spread = tables.geometric_mean(spans)
    share = len(values) / len(last)
    there = "all" if share == 1 else percent(share)
    verb = "an isometry on" if spread.mean <= ISOMETRY else "no isometry on"
    return (
        f"{text}; of {last['place'].max()} values {there} are not zero (in float64), the largest "
        f"{spread.text(number)} times the smallest of these: {verb} what it keeps."
    )


def _resolution(table: pd.DataFrame) -> pd.Series:
    """Below this a singular value is rounding of float64: of each row's own matrix."""
    largest = table.groupby(["network", "seed", "layer"])["value"].transform("max")
    return table["place"].max() * np.finfo(np.float64).eps * largest


def _deepest(own: pd.DataFrame) -> pd.DataFrame:
    return own[own["layer"] == own["layer"].max()]
