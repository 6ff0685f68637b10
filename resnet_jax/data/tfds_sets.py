"""TFDS's image classification sets, stored as ArrayRecord; TensorFlow is never needed."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.data import image_ops, raw_readers, splits
from resnet_jax.data.image_folder import SUFFIXES, fingerprint
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.errors import InputError, check_choice

# TensorFlow Datasets is imported where it is needed: it takes most of a second, which neither
# `--help` nor a wrong name should have to wait for.

NOT_TFDS = ("digits", "image_folder")
"""Sets that `resnet_jax.data.datasets` loads without TFDS."""

_NAMING = ("file_name", "filename", "image_name", "id")  # features by which sets name an image
_READ_AT_ONCE = 1000  # records; reading ArrayRecord one by one takes twice as long


def names() -> tuple[str, ...]:
    """Data sets that load without being prepared by other means; other TFDS sets load as well."""
    return (*NOT_TFDS, *raw_readers.NUM_EXAMPLES)


class TfdsSet:
    """A TFDS set with an image and a label, prepared as ArrayRecord or about to be prepared.

    Images of a set whose size varies are fitted to squares of `image_size` in RGB, as an image
    folder's.

    Attributes:
      splits: a `tfds.core.SplitInfo` of each, also if the set is not prepared yet.
      class_names: by label.
      image_shape: (height, width, channels); None if sizes vary and no `image_size` is given.
    """

    def __init__(
        self, name: str, data_dir: str | None, image_size: int | None = None, upright: bool = False
    ):
        """Opens the set; reads no image.

        Args:
          name: the set, and config and version if need be, as TFDS writes them.
          data_dir: TFDS's folder of data sets; None is TFDS's own.
          image_size: side in pixels of the squares.
          upright: whether the EXIF orientation of images whose size varies is applied.

        Raises:
          InputError: there is no such set, or it has other features.
        """
        self._name, self._upright = name, upright
        self._builder = open_builder(name, data_dir)
        info = self._builder.info
        self.splits = dict(info.splits) or splits.infos(raw_readers.NUM_EXAMPLES[name])
        check_features(name, info.features)
        shape = info.features["image"].shape
        self._varies = None in shape
        squares = (image_size, image_size, 3) if image_size else None
        self.image_shape = squares if self._varies else shape
        self.class_names = raw_readers.CLASSES.get(name) or tuple(info.features["label"].names)

    def records(self, split: str) -> "Records":
        """Random access to a split in TFDS's syntax.

        Raises `InputError` for a file of it that is missing or broken.
        """
        return Records(self._name, split, _raw_records(self._builder, split), self.class_names)

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 [n, height, width, channels], and labels [n] of positions in a split."""
        # Parsing records here takes half as long as TFDS's decoding: 4 s for 50,000 CIFAR images.
        records = _raw_records(self._builder, split)
        assert self.image_shape  # else `datasets.check` has refused
        images = np.empty((stop - start, *self.image_shape), np.uint8)
        labels = np.empty(stop - start, np.int32)
        upright = self._varies and self._upright
        for first in range(start, stop, _READ_AT_ONCE):
            indices = range(first, min(first + _READ_AT_ONCE, stop))
            for i, record in zip(indices, _fetch(records, indices), strict=True):
                place = f"{self._name}: record {i}"
                _, image, label = _parsed(record, place, len(self.class_names))
                stored = EncodedImage(image, label, place)
                pixels = stored.decode(self.image_shape[-1], upright=upright)
                if self._varies:
                    pixels = image_ops.centre_square(pixels, self.image_shape[0])
                if pixels.shape != self.image_shape:
                    raise InputError(
                        f"{place}: an image of {pixels.shape}, in a set of {self.image_shape}"
                    )
                images[i - start], labels[i - start] = pixels, stored.label
        return images, labels

    def fingerprint(self, split: str) -> dict[str, Any]:
        """What tells a split of a prepared set from another: its examples and its files."""
        info = self.splits[split]
        found = fingerprint([Path(path) for path in info.filepaths])
        return {"examples": info.num_examples, **found}


class Records:
    """The encoded images of a split: `len(records)`, `records[i]`; sent to worker processes.

    Attributes:
      name: the data set's.
      class_names: the name of each label.
    """

    def __init__(self, name: str, split: str, raw: Any, class_names: tuple[str, ...]):
        self.name, self.class_names = name, class_names
        self._raw, self._split = raw, split

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> EncodedImage:
        """Raises `InputError` for a label outside the classes (ImageNet's test split has none)."""
        (record,) = _fetch(self._raw, [index])
        place = f"{self.name}: {self._split}[{index}]"
        feature, image, label = _parsed(record, place, len(self.class_names))
        named = next((key for key in _NAMING if key in feature), None)
        stored = feature[named].bytes_list.value if named else ()
        name = stored[0].decode(errors="replace") if stored else f"{self._split}[{index}]"
        return EncodedImage(image, label, name)


def _parsed(record: bytes, place: str, num_classes: int) -> tuple[Any, bytes, int]:
    """A record's features, its image as the bytes of a file, and its label."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        feature = tf_example_pb2.Example.FromString(record).features.feature
        image, label = feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]
    except (DecodeError, IndexError) as error:
        raise InputError(f"{place}: holds no image with a label; prepare the set anew") from error
    if not 0 <= label < num_classes:
        raise InputError(f"{place}: has label {label}, classes are 0..{num_classes - 1}")
    return feature, image, label


def _raw_records(builder: Any, split: str) -> Any:
    """Random access to the serialised `tf.train.Example`s of a split of a prepared TFDS set.

    It can be sent to worker processes. Raises `InputError` if a file is missing or broken.
    """
    import tensorflow_datasets as tfds

    base = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)
    for part in {part.splitname for part in base}:
        info = builder.info.splits[part]
        for path, wanted in zip(info.filepaths, info.shard_lengths, strict=True):
            check_shard(Path(path), wanted)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split, deserialize_method=raw).data_source


def check_shard(path: Path, num_records: int) -> None:
    """Raises `InputError` for a file that is not there or has not so many records."""
    from array_record.python import array_record_module

    if not path.exists():
        raise InputError(f"{path}: missing; remove {path.parent} and prepare it")
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError, IndexError, OSError):
        found = None
    if found != num_records:
        raise InputError(f"{path}: truncated or damaged; remove {path.parent} and prepare it anew")


def _fetch(raw: Any, indices: Any) -> list[bytes]:
    """Records by their places; raises `InputError` if they cannot be read."""
    try:
        # One by one is slower for many, and many at once, by threads, for one.
        return raw.__getitems__(list(indices)) if len(indices) > 1 else [raw[indices[0]]]
    except (RuntimeError, ValueError) as error:  # ArrayRecord's checksums, Riegeli's blocks.
        reason = str(error).split(";")[0]
        raise InputError(
            f"dataset: records {indices[0]} to {indices[-1]} are damaged ({reason}); prepare the "
            "set anew"
        ) from error


def expand(data_dir: str | None) -> str | None:
    """TFDS's folder with `~` resolved, which TFDS does in one place and not in another."""
    return str(Path(data_dir).expanduser()) if data_dir else None


def find(name: str, data_dir: str | None = None) -> Any | None:
    """The `tfds.core.DatasetInfo` of a small set if it is prepared as ArrayRecord, else None.

    Raises `InputError` if something else lies where the set would, or if `data_dir` is not a folder
    of data sets.
    """
    import tensorflow_datasets as tfds

    check_choice("dataset", name, raw_readers.NUM_EXAMPLES)
    builder = _without_traceback(lambda: tfds.builder(name, data_dir=expand(data_dir)), name)
    if not builder.data_path.exists():
        check_data_dir(data_dir)
        return None
    if not builder.is_prepared() or not builder.info.splits:
        raise InputError(f"{builder.data_dir}: not a prepared data set; remove or rename it")
    require_array_record(builder)
    return builder.info


def check_data_dir(data_dir: str | None) -> None:
    """Raises `InputError` for a folder that is part of a data set, or holds images, itself."""
    folder = Path(expand(data_dir) or ".").absolute()
    if data_dir is None or not folder.is_dir():
        return
    if (folder / "dataset_info.json").exists():
        root = folder.parents[1]
        raise InputError(f"data_dir={data_dir!r}: is one version of a data set; wanted {root}")
    if any(folder.glob("*/dataset_info.json")):
        raise InputError(f"data_dir={data_dir!r}: is one data set; wanted {folder.parent}")
    holds_images = any(path.suffix.lower() in SUFFIXES for path in folder.glob("*.*"))
    if holds_images or any((folder / "train").glob("*/")):
        raise InputError(
            f"data_dir={data_dir!r}: holds images; to train on them: dataset.name='image_folder'; "
            "for a set of TFDS wanted another folder, or None for TFDS's own"
        )


def require_array_record(builder: Any) -> None:
    """Raises `InputError` if a prepared set can only be read with TensorFlow."""
    import tensorflow_datasets as tfds

    formats = builder.info.available_file_formats()
    if tfds.core.FileFormat.ARRAY_RECORD not in formats:
        stored = ", ".join(sorted(stored.value for stored in formats))
        raise InputError(
            f"{builder.data_dir}: prepared as {stored or 'nothing'}, wanted array_record; give "
            "another data_dir, or remove the folder and prepare it again"
        )


def open_builder(name: str, data_dir: str | None) -> Any:
    """The builder of a set on disk; or of one that can be prepared, with empty `info.splits`.

    Raises `InputError` if there is no such set, or if what describes it is damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming, read_only_builder, registered

    data_dir = expand(data_dir)
    if name in raw_readers.NUM_EXAMPLES:
        find(name, data_dir)  # Raises if something that is not ArrayRecord is in the way.
        return tfds.builder(name, data_dir=data_dir)
    try:
        plain_name, kwargs = naming.parse_builder_name_kwargs(name, data_dir=data_dir)
    except ValueError as error:
        raise _unknown(name) from error
    try:
        builder = _without_traceback(
            lambda: read_only_builder.builder_from_files(str(plain_name), **kwargs), name
        )
    except registered.DatasetNotFoundError as error:
        check_data_dir(data_dir)
        if plain_name.name in registered.list_imported_builders():
            raise InputError(
                f"dataset={name!r}: not found in {data_dir or 'the folder of TFDS'}; prepare it "
                f"with TFDS, file_format=array_record; only {', '.join(raw_readers.NUM_EXAMPLES)}, "
                "in their newest versions, are prepared when they are needed"
            ) from error
        raise _unknown(name) from error
    require_array_record(builder)
    return builder


def _without_traceback(open_it: Any, name: str) -> Any:
    """A builder from files; raises `InputError` if the JSON that describes them is damaged."""
    from google.protobuf import json_format
    from tensorflow_datasets.core import registered

    try:
        return open_it()
    except registered.DatasetNotFoundError:
        raise
    # What TFDS raises on files that are cut off, or hold other JSON.
    except (json_format.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{name}: dataset_info.json or features.json of the prepared set is damaged ({reason})"
            "; remove its folder and prepare it anew"
        ) from error


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
    """Raises `InputError` if a set does not have an `image` of bytes and a `label` of classes."""
    import tensorflow_datasets as tfds

    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in kinds.items():
        if key not in features or not isinstance(features[key], kind):
            raise InputError(
                f"{name}: wanted features image and label, it has {', '.join(features)}"
            )
    if features["image"].np_dtype != np.uint8:
        raise InputError(f"{name}: images are {features['image'].np_dtype.__name__}, wanted uint8")
    if features["label"].num_classes < 2:
        raise InputError(f"{name}: a single class; a classifier needs two at least")
