"""How alike the gradients of different inputs are (Balduzzi et al. 2017, "The Shattered Gradients
Problem").
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models.resnet import ResNet


class Correlation(NamedTuple):
    """Mean cosines between input gradients; and the cosines between the inputs themselves.

    Attributes:
      nearby, nearby_inputs: of pairs a small step apart.
      unrelated, unrelated_inputs: of pairs of different images.
    """

    nearby: float
    unrelated: float
    nearby_inputs: float
    unrelated_inputs: float


def measure(
    model: ResNet, variables: Any, images: np.ndarray, nearness: float = 0.1, seed: int = 0
) -> Correlation:
    """Cosines between the gradients, with respect to the image, of one random sum of the logits.

    A pair's partner is another image; the nearby partner is `nearness` of the way to it. Batch norm
    uses the statistics of the whole batch (see `population.with_statistics_of` for an untrained
    net), so that gradients of different images do not mix.

    Args:
      images: [examples, height, width, channels], at least two.
    """
    partners = np.roll(images, 1, axis=0)
    near = (1 - nearness) * images + nearness * partners
    gradients = [np.asarray(_gradients(model, variables, x, seed)) for x in (images, near)]
    at, close = gradients
    return Correlation(
        nearby=_cosine(at, close),
        unrelated=_cosine(at, np.roll(at, 1, axis=0)),
        nearby_inputs=_cosine(images, near),
        unrelated_inputs=_cosine(images, partners),
    )


@partial(jax.jit, static_argnums=(0, 3))
def _gradients(model, variables, images, seed) -> jax.Array:
    weights = jax.random.normal(jax.random.key(seed), (model.num_classes,))
    total = lambda x: (model.apply(variables, x, train=False) @ weights).sum()
    return jax.grad(total)(jnp.asarray(images, jnp.float32))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over examples; an example whose gradient is zero counts as uncorrelated."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.where(norms > 0, norms, 1.0)))
