"""Small networks and images for the analyses."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import zoo

DRAWS = np.random.default_rng(0)
IMAGES = DRAWS.normal(size=(8, 8, 8, 1)).astype(np.float32)
LABELS = DRAWS.integers(0, 10, 8)


def make(name, images=IMAGES, width=4, **axes):
    """A model and its initial variables, for images of that shape."""
    model = zoo.create(name, width=width, **axes)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    return model, {"batch_stats": {}, **model.lazy_init(jax.random.key(0), image, train=False)}


def shaken(variables, scale=0.1, seed=1):
    """Other weights near these, so that no parameter or statistic is 0 or 1."""
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) + scale * np.abs(draws.normal(size=leaf.shape)), variables
    )
