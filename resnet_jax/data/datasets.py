"""Where examples come from: a split of a data set, loaded into memory.

- `digits`: scikit-learn's embedded 1,797 digits, 8×8 pixels; needs no file and no network.
- `image_folder`: pictures in `data_dir/{train,validation,test}/<class>/`.
- any image classification set of TFDS that is prepared as ArrayRecord; those in
  `raw_readers` are downloaded and prepared at first use. TensorFlow is never needed.

Splits are TFDS's for every source: `train`, `train[:45000]`, `train[90%:]`, `train+test`.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from resnet_jax.data import image_folder, raw_readers, split_syntax, tfds_sets
from resnet_jax.errors import InputError

# scikit-learn is imported where it is needed, as TensorFlow Datasets is: together they take more
# than a second, which neither `--help` nor a wrong name should have to wait for.

_DIGITS_PER_SPLIT = {"train": 1438, "test": 359}
_DIGITS_SIZE = 8


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images and labels of one split, in a fixed order.

    Attributes:
      images: uint8 [N, height, width, channels].
      labels: int32 [N], each in [0, len(class_names)).
      class_names: the name of each label.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def check(
    name: str, splits: Iterable[str], *, data_dir: str | None, image_size: int | None
) -> None:
    """Finds what is wrong with a choice of data before anything is read or downloaded.

    Raises:
      InputError: for what `load` would refuse, except broken files.
    """
    source = _open(name, data_dir, image_size)
    for split in splits:
        split_syntax.resolve(name, split, source.splits)


def load(
    name: str, split: str, *, data_dir: str | None = None, image_size: int | None = None
) -> Examples:
    """Loads a split of the data set `name`.

    Args:
      name: one of `tfds_sets.names()`, or a TFDS set, config and version as TFDS writes them.
      split: a split in TFDS's syntax.
      data_dir: the tree of an `image_folder`, else TFDS's folder of data sets (None: TFDS's own).
      image_size: side in pixels of the squares that pictures of an `image_folder`, or of a TFDS
        set whose images vary in size, are fitted to; for other sets None or the size they have.

    Raises:
      InputError: for a name, split, size or folder that cannot be loaded, for broken files, for
        labels outside the classes and if a download fails.
    """
    check(name, [split], data_dir=data_dir, image_size=image_size)
    if name in raw_readers.NUM_EXAMPLES:
        from resnet_jax.data import small

        small.prepare(name, data_dir)
    source = _open(name, data_dir, image_size)
    parts = [source.read(*part) for part in split_syntax.resolve(name, split, source.splits)]
    # One part is the rule; concatenating it would copy it.
    images, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    wrong = labels[(labels < 0) | (labels >= len(source.class_names))]
    if wrong.size:
        raise InputError(
            f"{name}: split {split!r} has label {wrong[0]}, classes are "
            f"0..{len(source.class_names) - 1}"
        )
    return Examples(images, labels, source.class_names)


class Description(NamedTuple):
    """What is known of a data set before a picture is read.

    Attributes:
      image_shape: (height, width, channels) in which all images are seen; None if they vary.
      class_names: by label.
    """

    image_shape: tuple[int, int, int] | None
    class_names: tuple[str, ...]


def describe(name: str, *, data_dir: str | None, image_size: int | None) -> Description:
    """Raises `InputError` for a name, size or folder that cannot be loaded."""
    if name not in tfds_sets.NOT_TFDS:
        features = tfds_sets.open_builder(name, data_dir).info.features
        tfds_sets.check_features(name, features)
        shape = features["image"].shape
        names = raw_readers.CLASSES.get(name) or tuple(features["label"].names)
        return Description(None if None in shape else shape, names)
    source = _open(name, data_dir, image_size)
    channels = 1 if name == "digits" else 3
    return Description((source.image_size, source.image_size, channels), source.class_names)


class _Source(Protocol):
    image_size: int | None  # None if images are not square
    splits: dict[str, Any]  # of tfds.core.SplitInfo
    class_names: tuple[str, ...]

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]: ...


def _open(name: str, data_dir: str | None, image_size: int | None) -> _Source:
    if name == "image_folder":
        return image_folder.ImageFolder(data_dir, image_size)
    digits = name == "digits"
    source = _Digits() if digits else tfds_sets.TfdsSet(name, data_dir, image_size)
    if image_size not in (None, source.image_size):
        raise InputError(
            f"image_size={image_size}: {name} has {source.image_size}×{source.image_size} pixels; "
            "only pictures of any size are resized"
        )
    return source


class _Digits:
    """8×8 grey digits; every fifth image is a test image. Values 0..16 become 0..255."""

    image_size = _DIGITS_SIZE
    class_names = tuple("0123456789")

    def __init__(self):
        self.splits = split_syntax.infos(_DIGITS_PER_SPLIT)

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        digits = datasets.load_digits()
        is_test = np.arange(len(digits.target)) % 5 == 4
        chosen = np.flatnonzero(is_test if split == "test" else ~is_test)[start:stop]
        images = np.round(digits.images[chosen] * 255 / 16).astype(np.uint8)
        return images[..., None], digits.target[chosen].astype(np.int32)
