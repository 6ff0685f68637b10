"""The papers' augmentation for small images: pad, crop at random, flip at random (v1 §4.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
