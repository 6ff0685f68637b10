"""From records to the crops of a batch, on the host; what worker processes run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.data import crops, image_ops
from resnet_jax.data.records import Records
from resnet_jax.errors import InputError

Batch = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [batch, size, size, 3], and labels, int32 [batch]."""


class Order(NamedTuple):
    """Which records a batch sees.

    Attributes:
      indices: int32 [batch], of records.
      places: int64 [batch], where in the stream they stand, or None if nothing is to be random.
    """

    indices: np.ndarray
    places: np.ndarray | None


class Batches:
    """`batches[step]` decodes, crops and scales a step's pictures; worker processes have copies.

    Args:
      records: of a split.
      order: says which records a step sees.
      augmentation: a key of `crops.AUGMENTATIONS`.
      framing: of the crops.
      seed: of the crops.
      rows: which of a batch this process is to fill, int [own]; the others stay as they are.
      length: how many steps there are.
    """

    def __init__(
        self,
        records: Records,
        order: Callable[[int], Order],
        *,
        augmentation: str,
        framing: crops.Framing,
        seed: int,
        rows: np.ndarray,
        length: int,
    ):
        self._records, self._order, self._rows = records, order, rows
        self._augmentation, self._framing, self._seed = augmentation, framing, seed
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        """Raises `InputError`, naming the record, for a picture that cannot be decoded."""
        order, size = self._order(step), self._framing.size
        # The rows of other processes are never written, and so take no memory.
        images = np.empty((len(order.indices), size, size, 3), np.uint8)
        labels = np.zeros(len(order.indices), np.int32)
        for row in self._rows:
            place = None if order.places is None else int(order.places[row])
            images[row], labels[row] = self.example(int(order.indices[row]), place)
        return images, labels

    def example(self, index: int, place: int | None) -> tuple[np.ndarray, int]:
        """The crop of record number `index` at that place of the stream, and its label."""
        record = self._records[index]
        picture = decode(record, crops.min_side(self._augmentation, self._framing))
        crop = crops.AUGMENTATIONS[self._augmentation](
            *picture.shape[:2], self._framing, None if place is None else draws(self._seed, place)
        )
        return crops.render(picture, crop, self._framing.size), record.label


def decode(record: Any, min_side: int | None) -> np.ndarray:
    """A record's picture, uint8 [height, width, 3]; raises `InputError` naming it."""
    try:
        return image_ops.decode(record.encoded, min_side=min_side)
    except image_ops.UnreadablePicture as error:
        raise InputError(f"dataset: {record.name}: unreadable picture ({error})") from error


def draws(seed: int, place: int) -> np.ndarray:
    """Numbers in [0, 1) that belong to a place of the stream: float64 [crops.DRAWS]."""
    # Another counter than that of the epochs' orders, which have keys of the same kind. Raw bits,
    # because only they are the same in all versions of NumPy.
    bits = np.random.Philox(key=[seed, place], counter=[0, 0, 0, 1]).random_raw(crops.DRAWS)
    return (bits >> np.uint64(11)) * 2.0**-53
