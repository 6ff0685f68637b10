"""Data sets that stay on the devices, as `uint8`; a batch is a pure function of (seed, step)."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from resnet_jax.data.augment import Windows, crop_and_flip, whole
from resnet_jax.errors import InputError, check_choice

CONSTANTS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Mean and standard deviation of red, green and blue, as many published weights want them."""

MEANS = ("pixel", "channel", "none", *CONSTANTS)
COLOR_MEANS = MEANS[1:]  # the same at all positions
STDS = ("channel", "none", *CONSTANTS)


class Normalization(NamedTuple):
    """What is subtracted from pixels in [0, 1], and what then divides them.

    Attributes:
      mean: float32 [height, width, channels].
      std: float32 [channels].
    """

    mean: np.ndarray
    std: np.ndarray

    def uniform(self) -> "Normalization":
        """With one colour, [channels], for the mean image: for pictures of other sizes."""
        # In float64: a sum over 50,000 equal pixels is off by 1 in 1,000 in float32.
        return Normalization(self.mean.mean((0, 1), dtype=np.float64).astype(np.float32), self.std)


def normalization(images: np.ndarray, mean: str = "pixel", std: str = "none") -> Normalization:
    """Statistics of the training images, uint8 [n, height, width, channels].

    Args:
      images: of the training split only.
      mean: "pixel" (v1 §4.2: one image), "channel" (one colour), "none", or a key of `CONSTANTS`.
      std: "channel", "none" (the papers), or a key of `CONSTANTS`.

    Raises:
      InputError: no such statistics, or constants of colours for images that have none.
    """
    check_choice("mean", mean, MEANS)
    check_choice("std", std, STDS)
    channels = images.shape[-1]
    for field, value in (("mean", mean), ("std", std)):
        if value in CONSTANTS and channels != 3:
            raise InputError(f"{field}={value!r}: for 3 colours; images have {channels} channel(s)")
    return Normalization(
        _mean(images, mean).astype(np.float32), _deviation(images, std).astype(np.float32)
    )


def normalize(images: jax.Array, normalization: Normalization) -> jax.Array:
    """Images, uint8 [n, height, width, channels], as float32."""
    pixels = jnp.asarray(images, jnp.float32) / 255
    return (pixels - normalization.mean) / normalization.std


def _mean(images: np.ndarray, kind: str) -> np.ndarray:
    """Float64 [height, width, channels]."""
    if kind in CONSTANTS:
        return np.broadcast_to(CONSTANTS[kind][0], images.shape[1:])
    if kind == "none":
        return np.zeros(images.shape[1:])
    mean_image = images.mean(0, dtype=np.float64) / 255
    if kind == "channel":
        return np.broadcast_to(mean_image.mean((0, 1)), mean_image.shape)
    return mean_image


def _deviation(images: np.ndarray, kind: str) -> np.ndarray:
    """Float64 [channels]; 1 for a channel that is constant."""
    if kind in CONSTANTS:
        return np.array(CONSTANTS[kind][1])
    deviation = np.ones(images.shape[-1])
    if kind == "channel":
        # By histogram: a float copy of the images would be eight times their size.
        for channel in range(images.shape[-1]):
            counts = np.bincount(images[..., channel].ravel(), minlength=256)
            values = np.arange(256) / 255
            center = np.average(values, weights=counts)
            deviation[channel] = np.sqrt(np.average((values - center) ** 2, weights=counts))
    return np.where(deviation > 0, deviation, 1.0)


@struct.dataclass
class Resident:
    """A split on the devices.

    Attributes:
      images: uint8 [n, height, width, channels].
      labels: int32 [n].
      normalization: of the training split.
      padding, flip: of the augmentation, see `augment.crop_and_flip`.
    """

    images: jax.Array
    labels: jax.Array
    normalization: Normalization
    padding: int = struct.field(pytree_node=False, default=0)
    flip: bool = struct.field(pytree_node=False, default=False)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    @property
    def on_devices(self) -> "Resident":
        return self

    def inputs(
        self, seed: int, start: int, end: int, batch_size: int, after: Any = None
    ) -> np.ndarray:
        """What the steps from `start` up to `end` see: indices, int32 [steps, batch]."""
        del after
        steps = range(start, end)
        return np.stack([batch_indices(seed, step, batch_size, len(self)) for step in steps])

    def augmented(
        self, indices: jax.Array, key: jax.Array, batch_size: int, own: Callable[[Any], Any]
    ) -> tuple[jax.Array, jax.Array]:
        """Images, float32, and labels, as the network is trained on them.

        Args:
          indices: of a step, or a device's part of them.
          key: of the step.
          batch_size: of the whole batch, whose windows are drawn at once.
          own: takes from arrays [batch, …] what belongs to `indices`.
        """
        windows = crop_and_flip(key, batch_size, padding=self.padding, flip=self.flip)
        return take(self, indices, own(windows))

    def close(self) -> None:
        """Nothing is under way."""

    def evaluation_inputs(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All examples once; see `evaluation_batches`."""
        return evaluation_batches(len(self), batch_size)

    def plain(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images, float32, and labels, as the network is tested on them."""
        return take(self, indices, whole(len(indices)))


def take(data: Resident, indices: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
    """Examples as the network wants them.

    Args:
      indices: int32 [batch], which examples.
      windows: which part of each is seen; what lies outside the image is zero after
        normalisation, as if padded then.

    Returns:
      Images, float32 [batch, height, width, channels], and labels, int32 [batch].
    """
    _, height, width, _ = data.images.shape
    columns = jnp.arange(width)
    columns = jnp.where(windows.flip[:, None], columns[::-1], columns) + windows.left[:, None]
    rows = jnp.arange(height) + windows.top[:, None]
    inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
    rows = jnp.clip(rows, 0, height - 1)[:, :, None]
    columns = jnp.clip(columns, 0, width - 1)[:, None, :]
    pixels = data.images[indices[:, None, None], rows, columns].astype(jnp.float32) / 255
    normalized = (pixels - data.normalization.mean[rows, columns]) / data.normalization.std
    return normalized * inside[..., None], data.labels[indices]


def _inside(positions: jax.Array, size: int) -> jax.Array:
    return (positions >= 0) & (positions < size)


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Which examples step number `step` (from 0) sees: int32 [batch_size].

    Each epoch is a fresh permutation of all examples; a batch that straddles two epochs ends one
    and begins the next, so none is dropped or repeated within an epoch.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(positions, num_examples)
    parts = [
        _epoch_order(seed, int(epoch), num_examples)[offsets[epochs == epoch]]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    # Raw bits of a bit generator are stable between NumPy versions; `permutation` is not.
    bits = np.random.Philox(key=[seed, epoch]).random_raw(num_examples)
    return np.argsort(bits, kind="stable").astype(np.int32)


def evaluation_batches(
    num_examples: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All examples once: pairs of indices, int32 [batch_size], and mask, bool [batch_size].

    The last batch is filled up with example 0, masked.
    """
    for start in range(0, num_examples, batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < num_examples
        yield np.where(mask, indices, 0).astype(np.int32), mask
