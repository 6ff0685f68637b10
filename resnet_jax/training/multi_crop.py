"""What a network says of images of any size, each seen in several crops.

A crop's scores are those of the network's fully convolutional form, averaged over its places. Over
an image's crops, scales and mirrored copies it is the probabilities that are averaged, as by
Krizhevsky et al. (2012, §4.1) and, for this fully convolutional test, by Simonyan & Zisserman
(2015, §3.2), whom v1 §3.4 follows; "logits" averages what comes before the softmax. (Over places
the two papers average logits. That is the mean of the features as well, since the layer is linear,
so a crop of the size trained on gets what the network itself says.)

Crops of many shapes would be many programs to compile. So a crop is filled up, on the right and
below, to one of few shapes, and what is filled in is hidden from every layer: the scores are those
of the crop by itself, to float32's rounding.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from resnet_jax.data.device_dataset import Normalization
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models.fully_convolutional import output_stride, score_map
from resnet_jax.models.resnet import ResNet
from resnet_jax.runtime import parallel

AVERAGES = ("probabilities", "logits")
ELONGATION = 4 / 3  # from one width to the next; most photographs are 4:3, and filled up by nothing


def filled_shape(height: int, width: int, grain: int) -> tuple[int, int]:
    """The shape that a crop is filled up to.

    Squares stay as they are. Of others the longer side grows to the next of the shorter side's
    multiples 4/3, 16/9, …, and both to multiples of `grain` pixels, the network's output stride:
    of one shorter side and up to 3:1 there are no more than eight shapes, and the square.
    """
    if height == width:
        return height, width
    short, long = sorted((height, width))
    bound: float = short
    while round(bound) < long:
        bound *= ELONGATION
    short, long = (grain * -(-round(side) // grain) for side in (short, bound))
    return (short, long) if height < width else (long, short)


def check_image(image: np.ndarray, channels: int) -> None:
    """Raises `InputError` unless an image is uint8 [height, width, channels]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels:
        raise InputError(
            f"image of {image.dtype} {list(image.shape)}: this network needs "
            f"uint8 [height, width, {channels}]"
        )


class MultiCropPredictor:
    """Scores images by their crops.

    Args:
      model, variables: the network.
      normalization: of its training.
      mesh: devices that share the crops.
      pixels: how many of them, with those that fill up, go through the network at a time.
      average: one of `AVERAGES`.
    """

    def __init__(
        self,
        model: ResNet,
        variables: Any,
        normalization: Normalization,
        mesh: Mesh,
        *,
        pixels: int,
        average: str = "probabilities",
    ):
        check_choice("average", average, AVERAGES)
        self._grain = output_stride(model.architecture)
        self._mesh, self._pixels, self._average = mesh, pixels, average
        self._normalization = normalization
        self._channels = variables["params"]["stem"]["kernel"].shape[2]
        self._variables = parallel.device_put_global(variables, parallel.replicated(mesh))
        whole, shared = parallel.replicated(mesh), parallel.sharded(mesh)

        def score(variables, mean, std, crops, sizes):
            images = (crops.astype(jnp.float32) / 255 - mean) / std
            scores = score_map(model, variables, images, sizes).mean()
            return scores if average == "logits" else jax.nn.log_softmax(scores)

        # Without `sizes` nothing is filled up.
        self._score = jax.jit(
            score, in_shardings=(whole, whole, whole, shared, shared), out_shardings=whole
        )

    def __call__(self, images: Iterable[list[np.ndarray]]) -> np.ndarray:
        """The logarithms of the classes' probabilities, float32 [images, classes].

        Args:
          images: the crops of each, uint8 [height, width, channels], of any sizes.

        Raises:
          InputError: a crop has another type or shape.
        """
        totals: list[np.ndarray | float] = []
        counts: list[int] = []
        waiting: dict[tuple, list[tuple[int, np.ndarray]]] = defaultdict(list)

        def score(shape: tuple[int, int]) -> None:
            owners, crops = zip(*waiting.pop(shape), strict=True)
            for owner, scores in zip(owners, self._score_alike(shape, crops), strict=True):
                # Of probabilities the sum's logarithm, which cannot underflow.
                add = np.add if self._average == "logits" else np.logaddexp
                totals[owner] = add(totals[owner], scores.astype(np.float64))

        for owner, crops in enumerate(images):
            totals.append(0.0 if self._average == "logits" else -np.inf)
            counts.append(len(crops))
            for crop in crops:
                check_image(crop, self._channels)
                shape = filled_shape(crop.shape[0], crop.shape[1], self._grain)
                waiting[shape].append((owner, crop))
                if len(waiting[shape]) == self._at_once(shape):
                    score(shape)
        for shape in list(waiting):
            score(shape)
        means = np.stack(totals)
        if self._average == "logits":
            means /= np.array(counts)[:, None]
        return (means - np.logaddexp.reduce(means, axis=-1, keepdims=True)).astype(np.float32)

    def _at_once(self, shape: tuple[int, int]) -> int:
        """How many crops of a filled shape go through the network at a time."""
        devices = self._mesh.size
        return max(self._pixels // (shape[0] * shape[1] * devices), 1) * devices

    def _score_alike(self, shape: tuple[int, int], crops: tuple[np.ndarray, ...]) -> np.ndarray:
        """Scores [crops, classes] of crops that are filled up to one shape."""
        batch = np.zeros((self._at_once(shape), *shape, crops[0].shape[-1]), np.uint8)
        sizes = np.tile(np.array(shape, np.int32), (len(batch), 1))
        for i, crop in enumerate(crops):
            height, width, _ = crop.shape
            batch[i, :height, :width] = crop
            sizes[i] = height, width
        normalization = self._normalization
        if normalization.mean.shape[:2] != shape:
            normalization = normalization.uniform()
        filled = any(crop.shape[:2] != shape for crop in crops)
        own = sizes if filled or shape[0] != shape[1] else None
        scores = self._score(self._variables, *normalization, batch, own)
        return np.asarray(parallel.block_on_cpu(scores))[: len(crops)]
