"""Pictures as they were taken: any size, encoded, one at a time.

A net was trained on pictures that had been cut to one size; tests of it (`test_crops`)
cut them anew.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from resnet_jax.data import datasets, image_folder, image_ops, records, split_syntax
from resnet_jax.data.records import Record
from resnet_jax.errors import InputError

_Y = TypeVar("_Y")
_AT_ONCE = 64  # pictures in memory, once more while these are looked at


class OneSize(InputError):
    """The pictures of a data set are already as a net sees them."""


class Photographs(Protocol):
    """A split of a data set; `class_names` are the names of its labels."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class _Files:
    """Files of an image folder."""

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, class_names: tuple[str, ...]):
        self.class_names = class_names
        self._paths, self._labels = paths, labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        path = self._paths[index]
        return Record(read_file(path), int(self._labels[index]), str(path))


def open(name: str, split: str, *, data_dir: str | None, image_size: int | None) -> Photographs:
    """Opens a split of an image folder, or of a TFDS set whose pictures vary in size.

    Args:
      name, split, data_dir, image_size: see `sources.load`.

    Raises:
      OneSize: nothing can be cut from its pictures that the net has not seen whole.
      InputError: it cannot be opened.
    """
    if name != "image_folder":
        shape = datasets.describe(name, data_dir=data_dir, image_size=None).image_shape
        if shape:
            raise OneSize(f"{name}'s pictures are all {shape[1]}×{shape[0]}: there is one view")
        return records.open(name, split, data_dir)
    folder = image_folder.ImageFolder(data_dir, image_size)
    parts = [folder.files(*part) for part in split_syntax.resolve(name, split, folder.splits)]
    paths = [path for files, _ in parts for path in files]
    return _Files(paths, np.concatenate([labels for _, labels in parts]), folder.class_names)


def read_file(path: Path) -> bytes:
    """A file's content; raises `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def decode(record: Record, channels: int = 3) -> np.ndarray:
    """A record's picture, uint8 [height, width, channels]; grey if `channels` is 1.

    Raises `InputError`, naming the record, if it is broken.
    """
    try:
        if channels == 1:
            return np.asarray(image_ops.decode_with_pillow(record.encoded, "L"))[..., None]
        return image_ops.decode(record.encoded)
    except image_ops.UnreadablePicture as error:
        raise InputError(f"{record.name}: unreadable picture ({error})") from error


def read_ahead(function: Callable[[int], _Y], count: int) -> Iterator[_Y]:
    """`function(0)`, `function(1)`, … up to `count`, in turn, computed ahead by threads."""
    starts = range(0, count, _AT_ONCE)
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = lambda start: [
            pool.submit(function, i) for i in range(start, min(start + _AT_ONCE, count))
        ]
        try:
            ahead = jobs(0) if count else []
            for start in starts:
                present, ahead = ahead, jobs(start + _AT_ONCE)
                for job in present:
                    yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)
