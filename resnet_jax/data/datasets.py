"""Where examples come from: a split of a data set, loaded into memory or opened one by one.

- `digits`: scikit-learn's embedded 1,797 digits, 8×8 pixels; needs no file and no network.
- `image_folder`: images in `data_dir/{train,validation or val,test}/<class>/`.
- any image classification set of TFDS that is prepared as ArrayRecord; those in
  `raw_readers` are downloaded and prepared at first use. TensorFlow is never needed.

Splits are TFDS's for every source: `train`, `train[:45000]`, `train[90%:]`, `train+test`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from resnet_jax.data import image_folder, raw_readers, splits, tfds_sets
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.errors import InputError

# scikit-learn is imported where it is needed, as TensorFlow Datasets is: together they take more
# than a second, which neither `--help` nor a wrong name should have to wait for.

_DIGITS_PER_SPLIT = {"train": 1438, "test": 359}
_DIGITS_SIZE = 8

_Y = TypeVar("_Y")
_AT_ONCE = 64  # images in memory, once more while these are looked at


class DatasetInfo(NamedTuple):
    """What is known of a data set before an image is read.

    Attributes:
      image_shape: (height, width, channels) in which all images are seen; None if they vary.
      class_names: by label.
      num_examples: of each split.
      left_out: in words, what lies beside the images and is not used, and which classes have none
        in a split; "" if there is nothing to say.
    """

    image_shape: tuple[int, int, int] | None
    class_names: tuple[str, ...]
    num_examples: dict[str, int]
    left_out: str = ""


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


class OneSize(InputError):
    """The images of a data set are already as a network sees them."""


def check(
    name: str,
    splits_used: Iterable[str],
    *,
    data_dir: str | None,
    image_size: int | None,
    padding: int = 0,
    stream_batch: int | None = None,
) -> None:
    """Finds what is wrong with a choice of data before anything is read or downloaded.

    Args:
      name, data_dir, image_size: see `load`; of a stream, `image_size` is the side of its crops.
      splits_used: in TFDS's syntax; no two share examples.
      padding: pixels by which images are padded before they are cropped.
      stream_batch: of a stream, images that are in memory at a time; None holds all.

    Raises:
      InputError: for what `load` would refuse, except broken files, or, of a stream, for what
        `open_records` would, except missing ones; for images that do not fit into this machine's
        memory; for a padding as large as the images.
    """
    if stream_batch is not None:
        _check_memory(name, (image_size or 0, image_size or 0, 3), stream_batch)
        opened = _open_stream(name, data_dir)
        splits.check_apart(name, [(s, splits.resolve(name, s, opened.splits)) for s in splits_used])
        return
    source = _open(name, data_dir, image_size)
    resolved = [(spec, splits.resolve(name, spec, source.splits)) for spec in splits_used]
    splits.check_apart(name, resolved)
    parts = [part for _, own in resolved for part in own]
    if source.image_shape is None:
        raise InputError(
            f"{name}: image_size={image_size}; images vary in size: give dataset.image_size, the "
            "side in pixels of the squares that they are to be fitted to, such as 32"
            + ("" if name == "image_folder" else ", or stream them as configs/imagenet.py does")
        )
    _check_memory(name, source.image_shape, sum(stop - start for _, start, stop in parts))
    side = min(source.image_shape[:2])
    if padding >= side:
        raise InputError(
            f"dataset.crop_padding={padding}: images are {source.image_shape[1]}×"
            f"{source.image_shape[0]} pixels, and a crop would miss them; give less than {side}"
        )


def load(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    upright: bool = False,
) -> Examples:
    """Loads a split of the data set `name`.

    Args:
      name: one of `tfds_sets.names()`, or a TFDS set, config and version as TFDS writes them.
      split: a split in TFDS's syntax.
      data_dir: the tree of an `image_folder`, else TFDS's folder of data sets (None: TFDS's own).
      image_size: side in pixels of the squares that images of an `image_folder`, or of a TFDS set
        whose images vary in size, are fitted to; for other sets None or the size they have.
      upright: whether the EXIF orientation of such images is applied; see `image_ops.decode`.

    Raises:
      InputError: for a name, split, size or folder that cannot be loaded, for broken files, for
        labels outside the classes and if a download fails.
    """
    check(name, [split], data_dir=data_dir, image_size=image_size)
    _prepare(name, data_dir)
    source = _open(name, data_dir, image_size, upright)
    parts = [source.read(*part) for part in splits.resolve(name, split, source.splits)]
    # One part is the rule; concatenating it would copy it.
    images, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    return Examples(images, labels, source.class_names)


def open_records(name: str, split: str, data_dir: str | None = None) -> tfds_sets.Records:
    """Opens a split of a TFDS image set that is prepared as ArrayRecord; reads no image.

    `imagenet2012`, `imagenette`, a folder of images that `experiments.prepare_data` converted, or
    any other set with an `image` and a `label`, of whatever sizes. Small sets that TFDS can
    download are prepared if need be, as by `load`.

    Args:
      name: the set, and config and version if need be, as TFDS writes them.
      split: a split in TFDS's syntax.
      data_dir: TFDS's folder of data sets; None is TFDS's own.

    Raises:
      InputError: there is no such set or split, a file of it is missing or broken, or it has other
        features.
    """
    splits.resolve(name, split, _open_stream(name, data_dir).splits)
    _prepare(name, data_dir)
    return tfds_sets.TfdsSet(name, data_dir).records(split)


def open_images(name: str, split: str, *, data_dir: str | None) -> "tfds_sets.Records | Files":
    """Opens a split of an image folder, or of a TFDS set whose images vary in size.

    Args:
      name, split, data_dir: see `load`.

    Raises:
      OneSize: nothing can be cut from its images that the network has not seen whole.
      InputError: it cannot be opened.
    """
    if name != "image_folder":
        shape = describe(name, data_dir=data_dir, image_size=None).image_shape
        if shape:
            raise OneSize(f"{name}'s images are all {shape[1]}×{shape[0]}: there is one crop")
        return open_records(name, split, data_dir)
    folder = image_folder.ImageFolder(data_dir)
    parts = [folder.files(*part) for part in splits.resolve(name, split, folder.splits)]
    paths = [path for files, _ in parts for path in files]
    return Files(paths, np.concatenate([labels for _, labels in parts]), folder.class_names)


def describe(name: str, *, data_dir: str | None, image_size: int | None) -> DatasetInfo:
    """What is known of a data set; raises `InputError` if it cannot be opened."""
    source = _open(name, data_dir, image_size)
    left_out = ""
    if isinstance(source, image_folder.ImageFolder):
        left_out = image_folder.tell(image_folder.left_out(source.listings))
        if lacking := image_folder.lacking(source.class_names, source.listings):
            left_out = "; ".join([left_out or "nothing", *lacking])
    counts = {split: info.num_examples for split, info in source.splits.items()}
    return DatasetInfo(source.image_shape, source.class_names, counts, left_out)


def fingerprint(
    name: str, splits_used: Iterable[str], data_dir: str | None = None
) -> dict[str, Any]:
    """What tells the data of a run from other data, as JSON has it; does not depend on `data_dir`.

    Of each split that is used: the examples of every class of an image folder, and its files'
    names, sizes and contents; the files of a prepared set; the content of the digits. Large data
    are not read whole (`image_folder.fingerprint`).

    Args:
      name, data_dir: see `load`.
      splits_used: in TFDS's syntax.

    Raises:
      InputError: they cannot be opened.
    """
    _prepare(name, data_dir)
    source = _open(name, data_dir, None)
    used = {part[0] for spec in splits_used for part in splits.resolve(name, spec, source.splits)}
    return {
        "dataset": name,
        "class_names": hashlib.blake2b(repr(source.class_names).encode(), digest_size=8).hexdigest()
        + f" ({len(source.class_names)})",
        "splits": {split: source.fingerprint(split) for split in sorted(used)},
    }


def compare_fingerprints(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """One line on what differs between two of `fingerprint`; None if nothing does.

    Splits are compared that both have.
    """
    if old["dataset"] != new["dataset"]:
        return f"dataset {new['dataset']!r}, was {old['dataset']!r}"
    for split in sorted(old["splits"].keys() & new["splits"].keys()):
        before, now = old["splits"][split], new["splits"][split]
        if before == now:
            continue
        for kind, counts in (("classes", now.get("classes", {})), (None, now)):
            earlier = before.get(kind, {}) if kind else before
            for key in sorted(counts.keys() | earlier.keys()):
                was, found = earlier.get(key), counts.get(key)
                if was != found and kind:
                    return f"{split}/{key} has {found or 0:,} images, had {was or 0:,}"
                if was != found and key in ("examples", "files"):
                    return f"{split} has {found or 0:,} {key}, had {was or 0:,}"
        return f"{split} has other images (as many, of other names, sizes or contents)"
    if old["class_names"] != new["class_names"]:
        return "other names of classes"
    return None


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


def _prepare(name: str, data_dir: str | None) -> None:
    """Downloads and prepares a small set of TFDS, unless it is there."""
    if name in raw_readers.NUM_EXAMPLES and tfds_sets.find(name, data_dir) is None:
        from resnet_jax.data import small  # Loads TensorFlow Datasets.

        small.prepare(name, data_dir)


def _open(
    name: str, data_dir: str | None, image_size: int | None, upright: bool = False
) -> "image_folder.ImageFolder | tfds_sets.TfdsSet | _Digits":
    if image_size is not None and image_size < 1:
        raise InputError(f"{name}: image_size={image_size}; wanted pixels, such as 32")
    if name == "image_folder":
        return image_folder.ImageFolder(data_dir, image_size, upright)
    if name == "digits":
        if data_dir is not None:
            raise InputError(
                f"data_dir={data_dir!r}: digits come with scikit-learn and have no folder; to read "
                "images there: dataset.name='image_folder'"
            )
        source: tfds_sets.TfdsSet | _Digits = _Digits()
    else:
        source = tfds_sets.TfdsSet(name, data_dir, image_size, upright)
    shape = source.image_shape
    if image_size and shape and shape[:2] != (image_size, image_size):
        height, width, _ = shape
        raise InputError(
            f"image_size={image_size}: {name} has {width}×{height} pixels; only images of any size "
            "are resized"
        )
    return source


def _open_stream(name: str, data_dir: str | None) -> tfds_sets.TfdsSet:
    if name in tfds_sets.NOT_TFDS:
        raise InputError(
            f"dataset.name={name!r}: is not streamed; `python -m experiments.prepare_data "
            "--dataset=NAME --source=TREE` makes a set of a tree of images that is"
        )
    return tfds_sets.TfdsSet(name, data_dir)


def _check_memory(name: str, shape: tuple[int, int, int], count: int) -> None:
    """Raises `InputError` if so many images cannot be held by this machine."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = count * int(np.prod(shape, dtype=object))
    if wanted > memory:
        height, width, _ = shape
        raise InputError(
            f"{name}: {count:,} images of {width}×{height} take {wanted / 1e9:,.0f} GB, this "
            f"machine has {memory / 1e9:,.0f} GB of memory; give a smaller dataset.image_size "
            "or fewer images"
        )


class Files:
    """Files of an image folder, as `tfds_sets.Records`."""

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, class_names: tuple[str, ...]):
        self.class_names = class_names
        self._paths, self._labels = paths, labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> EncodedImage:
        return image_folder.read_file(self._paths[index], int(self._labels[index]))


class _Digits:
    """8×8 grey digits; every fifth image is a test image. Values 0..16 become 0..255."""

    image_shape = (_DIGITS_SIZE, _DIGITS_SIZE, 1)
    class_names = tuple("0123456789")

    def __init__(self):
        self.splits = splits.infos(_DIGITS_PER_SPLIT)

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        digits = datasets.load_digits()
        is_test = np.arange(len(digits.target)) % 5 == 4
        chosen = np.flatnonzero(is_test if split == "test" else ~is_test)[start:stop]
        images = np.round(digits.images[chosen] * 255 / 16).astype(np.uint8)
        return images[..., None], digits.target[chosen].astype(np.int32)

    def fingerprint(self, split: str) -> dict[str, Any]:
        images, labels = self.read(split, 0, _DIGITS_PER_SPLIT[split])
        content = images.tobytes() + labels.tobytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return {"examples": len(labels), "digest": digest}
