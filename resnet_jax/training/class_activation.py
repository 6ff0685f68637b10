"""Where in an image a network sees a class: class activation maps (Zhou et al. 2016).

A network that ends in a mean over places and a linear layer says of each place how much it speaks
for a class: the fully convolutional form's score map less the bias (§2 there). The places that
speak for it most give a box around the object, from a network that was shown no boxes (§3.2).
Dilation makes the map finer: see `fully_convolutional.with_output_stride`.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import ndimage

from resnet_jax.models.fully_convolutional import output_stride, score_map
from resnet_jax.models.resnet import ResNet

THRESHOLD = 0.2  # of the map's maximum (Zhou et al. 2016, §3.2)


class Box(NamedTuple):
    """A part of an image, in pixels; `right` and `bottom` are the first beyond it."""

    left: int
    top: int
    right: int
    bottom: int


@functools.partial(jax.jit, static_argnums=0)
def class_activation_map(
    model: ResNet, variables: Any, images: jax.Array, labels: jax.Array, sizes: jax.Array
) -> jax.Array:
    """How much each place speaks for a class: float32 [batch, rows, columns].

    The mean over an image's places, and the classifier's bias, are the class's logit.

    Args:
      model, variables: the network.
      images: float [batch, height, width, channels], normalised, each filled up to one size.
      labels: int [batch], the classes.
      sizes: int32 [batch, 2], see `fully_convolutional.score_map`; of an image with n pixels the
        first ⌈n / output stride⌉ places are its own.
    """
    scores = score_map(model, variables, images, sizes).scores
    bias = variables["params"]["classifier"]["bias"]
    return jax.vmap(lambda map, label: map[..., label] - bias[label])(scores, labels)


def enlarge(
    places: np.ndarray, model: ResNet, seen: tuple[int, int], to: tuple[int, int]
) -> np.ndarray:
    """An image's map in the image's own pixels, bilinear: float [height, width].

    Args:
      places: [rows, columns] of the map, the image's own.
      model: whose map it is.
      seen: height and width in which the network saw the image.
      to: the image's own height and width.
    """
    stride = output_stride(model.architecture)
    # Every layer pads evenly, so that place i looks at pixel i · stride and around it.
    rows, columns = (
        ((np.arange(own) + 0.5) * shown / own - 0.5) / stride
        for shown, own in zip(seen, to, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(places, grid, order=1, mode="nearest")


def box(map: np.ndarray, threshold: float = THRESHOLD) -> Box | None:
    """The box around the largest connected part of a map above a fraction of its maximum.

    `map` is float [height, width]. None if no place speaks for the class.
    """
    if not map.max() > 0:
        return None
    parts, _ = ndimage.label(map > threshold * map.max())
    largest = np.argmax(np.bincount(parts.ravel())[1:])
    rows, columns = ndimage.find_objects(parts)[largest]
    return Box(columns.start, rows.start, columns.stop, rows.stop)
