"""Where examples come from: a split of a data set, loaded into memory.

- `digits`: scikit-learn's embedded 1,797 digits, 8×8 pixels; needs no file and no network.
- `image_folder`: pictures in `data_dir/{train,validation,test}/<class>/`.
- any image classification set of TFDS that is prepared as ArrayRecord; those in
  `resnet_jax.data.originals` are downloaded and prepared at first use. TensorFlow is never needed.

Splits are TFDS's for every source: `train`, `train[:45000]`, `train[90%:]`, `train+test`.
"""

import dataclasses
import difflib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from resnet_jax.data import image_folder, originals
from resnet_jax.errors import InputError

# TensorFlow Datasets and scikit-learn are imported where they are needed: together they take more
# than a second, which neither `--help` nor a wrong name should have to wait for.

_DIGITS_PER_SPLIT = {"train": 1438, "test": 359}
_DIGITS_SIZE = 8
_FOLDER_SPLITS = ("train", "validation", "test")
_READ_AT_ONCE = 1000  # records; reading ArrayRecord one by one takes twice as long


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


def names() -> tuple[str, ...]:
    """Data sets that load without being prepared by other means; other TFDS sets load as well."""
    return ("digits", "image_folder", *originals.NUM_EXAMPLES)


def check(
    name: str, splits: Iterable[str], *, data_dir: str | None, image_size: int | None
) -> None:
    """Finds what is wrong with a choice of data before anything is read or downloaded.

    Raises:
      InputError: for what `load` would refuse, except broken files.
    """
    source = _open(name, data_dir, image_size)
    for split in splits:
        resolve(name, split, source.splits)


def load(
    name: str, split: str, *, data_dir: str | None = None, image_size: int | None = None
) -> Examples:
    """Loads a split of the data set `name`.

    Args:
      name: one of `names()`, or a TFDS set, config and version as TFDS writes them.
      split: a split in TFDS's syntax.
      data_dir: the tree of an `image_folder`, else TFDS's folder of data sets (None: TFDS's own).
      image_size: side in pixels of the squares that pictures of an `image_folder` are fitted to;
        for other sets None or the size that they have.

    Raises:
      InputError: for a name, split, size or folder that cannot be loaded, for broken files, for
        labels outside the classes and if a download fails.
    """
    check(name, [split], data_dir=data_dir, image_size=image_size)
    if name in originals.NUM_EXAMPLES:
        from resnet_jax.data import builders

        builders.prepare(name, data_dir)
    source = _open(name, data_dir, image_size)
    parts = [source.read(*part) for part in resolve(name, split, source.splits)]
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
    if name not in ("digits", "image_folder"):
        features = tfds_builder(name, data_dir).info.features
        check_features(name, features)
        shape = features["image"].shape
        names = originals.CLASSES.get(name) or tuple(features["label"].names)
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
        return ImageFolder(data_dir, image_size)
    source = _Digits() if name == "digits" else _Tfds(name, data_dir)
    if image_size not in (None, source.image_size):
        raise InputError(
            f"image_size={image_size}: {name} has {source.image_size}×{source.image_size} pixels; "
            "only image_folder is resized"
        )
    return source


def resolve(name: str, spec: str, splits: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Each `(split, start, stop)` that a split in TFDS's syntax stands for."""
    import tensorflow_datasets as tfds

    existing = ", ".join(f"{split} ({info.num_examples:,})" for split, info in splits.items())
    try:
        instructions = tfds.core.ReadInstruction.from_spec(spec).to_absolute(splits)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[-1].rstrip(".")
        raise InputError(f"{name}: split {spec!r}: {reason}; there is {existing}") from error
    parts = []
    for part in instructions:
        stop = splits[part.splitname].num_examples if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if any(start >= stop for _, start, stop in parts):
        raise InputError(f"{name}: split {spec!r} is empty; there is {existing}")
    return parts


def _split_infos(sizes: dict[str, int]) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {
        split: tfds.core.SplitInfo(name=split, shard_lengths=[size], num_bytes=0)
        for split, size in sizes.items()
    }


class _Digits:
    """8×8 grey digits; every fifth image is a test image. Values 0..16 become 0..255."""

    image_size = _DIGITS_SIZE
    class_names = tuple("0123456789")

    def __init__(self):
        self.splits = _split_infos(_DIGITS_PER_SPLIT)

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        digits = datasets.load_digits()
        is_test = np.arange(len(digits.target)) % 5 == 4
        chosen = np.flatnonzero(is_test if split == "test" else ~is_test)[start:stop]
        images = np.round(digits.images[chosen] * 255 / 16).astype(np.uint8)
        return images[..., None], digits.target[chosen].astype(np.int32)


class ImageFolder:
    """Pictures in one folder a class, converted to RGB and fitted to squares.

    The order within a split is a fixed permutation, because pictures listed by class would make
    slices such as `train[:80%]` lack classes.
    """

    def __init__(self, data_dir: str | None, image_size: int | None):
        if data_dir is None:
            raise InputError("image_folder: data_dir=None; wanted the folder with train/ and test/")
        if image_size is None or image_size < 1:
            raise InputError(f"image_folder: image_size={image_size}; wanted pixels, such as 32")
        root = Path(data_dir).expanduser()
        self.image_size = image_size
        self.class_names = image_folder.class_names(root / "train")
        self._pictures = {
            split: image_folder.list_pictures(root / split, self.class_names)
            for split in _FOLDER_SPLITS
            if (root / split).is_dir()
        }
        self.splits = _split_infos({split: len(p) for split, (p, _) in self._pictures.items()})

    def files(self, split: str, start: int, stop: int) -> tuple[list[Path], np.ndarray]:
        """The pictures of a part of a split, in its order, and their labels, int32 [N]."""
        paths, labels = self._pictures[split]
        # Raw bits, not a Generator's methods: only they are the same in all versions of NumPy.
        bits = np.random.Philox(key=0).random_raw(len(paths))
        chosen = np.argsort(bits, kind="stable")[start:stop]
        return [paths[i] for i in chosen], labels[chosen]

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        paths, labels = self.files(split, start, stop)
        return image_folder.read_square(paths, self.image_size), labels


class _Tfds:
    """A TFDS set with an image and a label, prepared as ArrayRecord or about to be prepared."""

    def __init__(self, name: str, data_dir: str | None):
        self._builder = tfds_builder(name, data_dir)
        self.splits = splits_of(name, self._builder)
        check_features(name, self._builder.info.features)
        self._shape = _fixed_shape(name, self._builder.info.features)
        height, width, _ = self._shape
        self.image_size = height if height == width else None
        self.class_names = tuple(self._builder.info.features["label"].names)

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 [n, height, width, channels], and labels [n] of positions in a split."""
        from tensorflow_datasets.proto import tf_example_pb2

        # Parsing records here takes half as long as TFDS's decoding: 4 s for 50,000 CIFAR images.
        records = raw_records(self._builder, split)
        images = np.empty((stop - start, *self._shape), np.uint8)
        labels = np.empty(stop - start, np.int32)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[self._shape[-1]]
        for first in range(start, stop, _READ_AT_ONCE):
            indices = range(first, min(first + _READ_AT_ONCE, stop))
            for i, record in zip(indices, records.__getitems__(indices), strict=True):
                feature = tf_example_pb2.Example.FromString(record).features.feature
                encoded = io.BytesIO(feature["image"].bytes_list.value[0])
                picture = Image.open(encoded)
                picture = picture if picture.mode == mode else picture.convert(mode)
                images[i - start] = np.asarray(picture).reshape(self._shape)
                labels[i - start] = feature["label"].int64_list.value[0]
        return images, labels


def splits_of(name: str, builder: Any) -> dict[str, Any]:
    """The splits of a TFDS set, also of one that is not prepared yet."""
    return dict(builder.info.splits) or _split_infos(originals.NUM_EXAMPLES[name])


def raw_records(builder: Any, split: str) -> Any:
    """Random access to the serialised `tf.train.Example`s of a split of a prepared TFDS set.

    It can be sent to worker processes. Raises `InputError` if a file is missing.
    """
    import tensorflow_datasets as tfds

    for path in builder.info.splits[split].filepaths:
        if not path.exists():
            raise InputError(f"{path}: missing; remove {builder.data_dir} and prepare it")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split, deserialize_method=raw).data_source


def tfds_builder(name: str, data_dir: str | None):
    """The builder of a set on disk; or of one that can be prepared, with empty `info.splits`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming, read_only_builder, registered

    from resnet_jax.data import builders

    data_dir = builders.expand(data_dir)
    if name in originals.NUM_EXAMPLES:
        # Raises if something that is not ArrayRecord is in the way.
        builders.find(name, data_dir)
        return tfds.builder(name, data_dir=data_dir)
    try:
        plain_name, kwargs = naming.parse_builder_name_kwargs(name, data_dir=data_dir)
    except ValueError as error:
        raise _unknown(name) from error
    try:
        builder = read_only_builder.builder_from_files(str(plain_name), **kwargs)
    except registered.DatasetNotFoundError as error:
        if plain_name.name in registered.list_imported_builders():
            raise InputError(
                f"dataset={name!r}: not found in {data_dir or 'the folder of TFDS'}; prepare it "
                f"with TFDS, file_format=array_record; only {', '.join(originals.NUM_EXAMPLES)}, "
                "in their newest versions, are prepared when they are needed"
            ) from error
        raise _unknown(name) from error
    builders.require_array_record(builder)
    return builder


def _unknown(name: str) -> InputError:
    from tensorflow_datasets.core import registered

    # Sets that load at once come before the many that TFDS knows.
    for known in (names(), registered.list_imported_builders()):
        nearest = difflib.get_close_matches(name, known, n=1)
        if nearest:
            break
    hint = f"; nearest: {nearest[0]}" if nearest else ""
    return InputError(
        f"dataset={name!r}: allowed are {', '.join(names())} and sets prepared with TFDS{hint}"
    )


def check_features(name: str, features: Any) -> None:
    """Raises `InputError` if a set does not have an `image` of bytes and one `label`."""
    import tensorflow_datasets as tfds

    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in kinds.items():
        if key not in features or not isinstance(features[key], kind):
            raise InputError(
                f"{name}: wanted features image and label, it has {', '.join(features)}"
            )
    if features["image"].np_dtype != np.uint8:
        raise InputError(f"{name}: images are {features['image'].np_dtype.__name__}, wanted uint8")


def _fixed_shape(name: str, features: Any) -> tuple[int, int, int]:
    """[height, width, channels] of every image of a set."""
    shape = features["image"].shape
    if None in shape:
        raise InputError(
            f"{name}: images vary in size and do not fit an array; "
            "export them and use image_folder, or stream the set"
        )
    return shape
