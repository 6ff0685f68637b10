"""Singular values of the input–output Jacobian along the depth of a net (Saxe et al. 2014,
Pennington et al. 2017, Xiao et al. 2018).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import LinearOperator, svds

from resnet_jax.models.resnet import ResidualBlock, ResNet
from resnet_jax.studies.hooks import changed

Track = Callable[[Iterable], Iterable]

EXACT_UP_TO = 1024  # input numbers
_AT_ONCE = 64  # directions


class Spectrum(NamedTuple):
    """Of the Jacobian of one unit's output with respect to the image.

    Attributes:
      unit: its place, from 0.
      values: singular values in falling order; all of them, or the largest.
      rms: root mean square over all directions of the input.
      exact: whether `values` are all.
    """

    unit: int
    values: np.ndarray
    rms: float
    exact: bool


def measure(
    model: ResNet,
    variables: Any,
    image: np.ndarray,
    units: Sequence[int],
    largest: int = 6,
    seed: int = 0,
    track: Track = iter,
) -> list[Spectrum]:
    """Singular values of ∂(output of a unit) / ∂(image), for each of `units`.

    Exact for images of at most `EXACT_UP_TO` numbers: the whole matrix is computed. For others the
    `largest` values come from ARPACK's Lanczos iteration, and the root mean square from 64 random
    directions (Hutchinson).

    Args:
      image: [height, width, channels]. The net runs with its running statistics.
      units: places of units, from 0.
    """
    units = tuple(int(unit) for unit in units)
    if image.size <= EXACT_UP_TO:
        return _exact(model, variables, image, units, track)
    draws = np.random.default_rng(seed).standard_normal((_AT_ONCE, *image.shape))
    pushed = _push(model, variables, image, draws.astype(np.float32), units)
    squares = (draws.reshape(_AT_ONCE, -1) ** 2).sum()
    spectra = []
    for place, unit in track(list(enumerate(units))):
        rms = float(np.sqrt((np.asarray(pushed[place], np.float64) ** 2).sum() / squares))
        values = _largest(model, variables, image, units, place, largest, seed)
        spectra.append(Spectrum(unit, values, rms, exact=False))
    return spectra


def _exact(model, variables, image, units, track) -> list[Spectrum]:
    basis = np.eye(image.size, dtype=np.float32)
    basis = np.pad(basis, ((0, -image.size % _AT_ONCE), (0, 0)))  # One shape compiles once.
    parts = []
    for part in track(list(np.split(basis, len(basis) // _AT_ONCE))):
        tangents = part.reshape(-1, *image.shape)
        parts.append(jax.device_get(_push(model, variables, image, tangents, units)))
    spectra = []
    for place, unit in enumerate(units):
        columns = np.concatenate([part[place] for part in parts])[: image.size]
        values = np.linalg.svd(columns.astype(np.float64), compute_uv=False)
        rms = float(np.sqrt((values**2).sum() / image.size))
        spectra.append(Spectrum(unit, values, rms, exact=True))
    return spectra


def _largest(model, variables, image, units, place, count, seed) -> np.ndarray:
    outputs = jax.eval_shape(partial(_outputs, model, variables, units), image)
    shapes = [output.shape for output in outputs]

    def forward(vector):
        tangents = vector.reshape(1, *image.shape).astype(np.float32)
        return np.asarray(_push(model, variables, image, tangents, units)[place][0], np.float64)

    def backward(vector):
        cotangents = tuple(
            vector.reshape(shape).astype(np.float32)
            if index == place
            else np.zeros(shape, np.float32)
            for index, shape in enumerate(shapes)
        )
        return np.asarray(_pull(model, variables, image, cotangents, units), np.float64).ravel()

    size = int(np.prod(shapes[place]))
    operator = LinearOperator((size, image.size), matvec=forward, rmatvec=backward)
    start = np.random.default_rng(seed).standard_normal(min(operator.shape))
    values = svds(operator, k=count, return_singular_vectors=False, v0=start, tol=1e-3)
    return np.sort(values)[::-1]


def _outputs(model, variables, units, image) -> tuple[jax.Array, ...]:
    wanted = {model.block_names[unit]: place for place, unit in enumerate(units)}
    found = [None] * len(units)

    def seen(unit, _, y):
        if unit.name in wanted:
            found[wanted[unit.name]] = y[0]
        return y

    with changed(ResidualBlock, "__call__", seen):
        model.apply(variables, image[None], train=False)
    return tuple(found)


@partial(jax.jit, static_argnums=(0, 4))
def _push(model, variables, image, tangents, units) -> tuple[jax.Array, ...]:
    """Each tangent [n, height, width, channels] through the Jacobians: [n, outputs] a unit."""
    _, push = jax.linearize(partial(_outputs, model, variables, units), jnp.asarray(image))
    return tuple(out.reshape(len(tangents), -1) for out in jax.vmap(push)(tangents))


@partial(jax.jit, static_argnums=(0, 4))
def _pull(model, variables, image, cotangents, units) -> jax.Array:
    _, pull = jax.vjp(partial(_outputs, model, variables, units), jnp.asarray(image))
    return pull(cotangents)[0]
