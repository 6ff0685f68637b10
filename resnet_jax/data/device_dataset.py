"""Data sets that stay on the devices, as `uint8`; a batch is a pure function of (seed, step).

Augmentation runs on the devices, too: small images are padded, cropped and flipped (v1 §4.2); large
ones, whose crops the host makes, get a noise of colours (v1 §3.4).
"""

import functools
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from resnet_jax.errors import InputError, check_choice

CONSTANTS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Mean and standard deviation of red, green and blue, as many published weights want them."""

MEANS = ("pixel", "channel", "none", *CONSTANTS)
COLOR_MEANS = MEANS[1:]  # the same at all positions
STDS = ("channel", "none", *CONSTANTS)
_ANEW = "delete it to compute it anew from the training images"


class Normalization(NamedTuple):
    """What is subtracted from pixels in [0, 1], and what then divides them.

    Attributes:
      mean: float32 [height, width, channels].
      std: float32 [channels].
    """

    mean: np.ndarray
    std: np.ndarray

    def uniform(self) -> "Normalization":
        """With one colour, [channels], for the mean image: for images of other sizes."""
        # In float64: a sum over 50,000 equal pixels is off by 1 in 1,000 in float32.
        return Normalization(self.mean.mean((0, 1), dtype=np.float64).astype(np.float32), self.std)

    def save(self, path: Path) -> None:
        """Writes an npz file, whole or not at all; `load` reads the same bits."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, mean=self.mean, std=self.std)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(buffer.getvalue())
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Normalization":
        """Reads what `save` wrote; raises `InputError` if it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(arrays["mean"], arrays["std"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged ({error}); {_ANEW}") from error
        if found.mean.ndim != 3 or found.std.shape != found.mean.shape[-1:]:
            shapes = f"mean {found.mean.shape}, std {found.std.shape}"
            raise InputError(f"{path}: damaged ({shapes}); {_ANEW}")
        return found


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


def normalize(images: jax.Array | np.ndarray, normalization: Normalization) -> jax.Array:
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


# --- augmentation

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


# --- the data set


class DeviceDataset(struct.PyTreeNode):
    """A split on the devices.

    Attributes:
      images: uint8 [n, height, width, channels].
      labels: int32 [n].
      normalization: of the training split.
      padding, flip: of the augmentation, see `crop_and_flip`.
    """

    images: jax.Array | np.ndarray  # of NumPy on the way to the devices
    labels: jax.Array | np.ndarray
    normalization: Normalization
    padding: int = struct.field(pytree_node=False, default=0)
    flip: bool = struct.field(pytree_node=False, default=False)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def on_devices(self) -> "DeviceDataset":
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
        """Images, float32 [batch, …], and labels, int32 [batch], as the network is tested."""
        return take(self, indices, whole(len(indices)))


def take(data: DeviceDataset, indices: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
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
