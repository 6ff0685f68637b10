"""The papers' augmentation on the devices: small images are padded, cropped and flipped (v1 §4.2);
large ones, whose crops the host makes, get a noise of colours (v1 §3.4).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

COLOR_VALUES = (0.2175, 0.0188, 0.0045)
COLOR_VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Principal components of the colours of ImageNet's pixels, in [0, 1], as fb.resnet.torch has them:
their magnitudes, and red, green and blue (rows) of each (columns)."""


class Windows(NamedTuple):
    """Which part of each image is seen, and how. Arrays of [batch].

    Attributes:
      top, left: int32, the window's corner; outside the image is zero, the mean colour.
      flip: bool, whether it is mirrored left to right.
    """

    top: jax.Array
    left: jax.Array
    flip: jax.Array


def whole(batch: int) -> Windows:
    """The images as they are, for tests."""
    zeros = jnp.zeros(batch, jnp.int32)
    return Windows(zeros, zeros, zeros.astype(bool))


def crop_and_flip(key: jax.Array, batch: int, *, padding: int, flip: bool) -> Windows:
    """Windows as after padding each side by `padding` and cropping to the size before.

    One draw serves the whole batch, so the windows do not depend on how it is spread over devices.
    """
    corner_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(corner_key, (batch, 2), -padding, padding + 1)
    flips = jax.random.bernoulli(flip_key, 0.5, (batch,)) & flip
    return Windows(corners[:, 0], corners[:, 1], flips)


def pca_lighting(key: jax.Array, batch: int, deviation: float) -> jax.Array:
    """What is added to all pixels in [0, 1] of an image: float32 [batch, 1, 1, 3].

    The principal components of the colours, each in its magnitude times a normal number of that
    standard deviation (Krizhevsky et al. 2012, §4.1: 0.1), drawn anew whenever an image is used.
    """
    amounts = deviation * jax.random.normal(key, (batch, 3))
    # Multiplied out: matrix units would round to bfloat16.
    scaled = jnp.asarray(COLOR_VECTORS) * jnp.asarray(COLOR_VALUES)
    return (amounts[:, None, :] * scaled).sum(-1)[:, None, None, :]
