"""TFDS's image classification sets, stored as ArrayRecord; TensorFlow is never needed."""

import difflib
import io
from typing import Any

import numpy as np
from PIL import Image

from resnet_jax.data import image_folder, image_ops, raw_readers, split_syntax
from resnet_jax.errors import InputError

# TensorFlow Datasets is imported where it is needed: it takes most of a second, which neither
# `--help` nor a wrong name should have to wait for.

NOT_TFDS = ("digits", "image_folder")
"""Sets that `resnet_jax.data.datasets` loads without TFDS."""

_READ_AT_ONCE = 1000  # records; reading ArrayRecord one by one takes twice as long


def names() -> tuple[str, ...]:
    """Data sets that load without being prepared by other means; other TFDS sets load as well."""
    return (*NOT_TFDS, *raw_readers.NUM_EXAMPLES)


class TfdsSet:
    """A TFDS set with an image and a label, prepared as ArrayRecord or about to be prepared.

    Images of a set whose size varies are fitted to squares of `image_size` in RGB, as an image
    folder's.
    """

    def __init__(self, name: str, data_dir: str | None, image_size: int | None):
        self._builder = open_builder(name, data_dir)
        self.splits = splits_of(name, self._builder)
        features = self._builder.info.features
        check_features(name, features)
        self._varies = None in features["image"].shape
        if self._varies and image_size is None:
            raise InputError(
                f"{name}: images vary in size; give dataset.image_size, the side of the squares "
                "that they are to be fitted to, or stream them as configs/imagenet.py does"
            )
        self._shape = (image_size, image_size, 3) if self._varies else features["image"].shape
        height, width, _ = self._shape
        self.image_size = height if height == width else None
        self.class_names = tuple(features["label"].names)

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
                encoded = feature["image"].bytes_list.value[0]
                picture = self._square(encoded, i) if self._varies else _open(encoded, mode)
                images[i - start] = np.asarray(picture).reshape(self._shape)
                labels[i - start] = feature["label"].int64_list.value[0]
        return images, labels

    def _square(self, encoded: bytes, index: int) -> Image.Image:
        try:
            picture = image_ops.decode_with_pillow(encoded, "RGB")
        except image_ops.UnreadablePicture as error:
            record = f"{self._builder.info.name}: record {index}"
            raise InputError(f"{record}: unreadable picture ({error})") from error
        return image_folder.fit_square(picture, self.image_size)


def _open(encoded: bytes, mode: str) -> Image.Image:
    picture = Image.open(io.BytesIO(encoded))
    return picture if picture.mode == mode else picture.convert(mode)


def splits_of(name: str, builder: Any) -> dict[str, Any]:
    """The splits of a TFDS set, also of one that is not prepared yet."""
    return dict(builder.info.splits) or split_syntax.infos(raw_readers.NUM_EXAMPLES[name])


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


def open_builder(name: str, data_dir: str | None):
    """The builder of a set on disk; or of one that can be prepared, with empty `info.splits`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming, read_only_builder, registered

    from resnet_jax.data import small

    data_dir = small.expand(data_dir)
    if name in raw_readers.NUM_EXAMPLES:
        # Raises if something that is not ArrayRecord is in the way.
        small.find(name, data_dir)
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
                f"with TFDS, file_format=array_record; only {', '.join(raw_readers.NUM_EXAMPLES)}, "
                "in their newest versions, are prepared when they are needed"
            ) from error
        raise _unknown(name) from error
    small.require_array_record(builder)
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
