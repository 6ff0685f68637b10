"""Random access to the pictures of a TFDS set, encoded as they are stored."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from resnet_jax.data import raw_readers, split_syntax, tfds_sets
from resnet_jax.errors import InputError

_NAMING = ("file_name", "filename", "image_name", "id")  # features by which sets name a picture


class Record(NamedTuple):
    """One picture.

    Attributes:
      encoded: its file's content.
      label: its class, in [0, len(class_names)).
      name: its file's name where the set keeps it, else the split and the position in it.
    """

    encoded: bytes
    label: int
    name: str


class Records:
    """The records of a split: `len(records)`, `records[i]`. Worker processes can have a copy.

    Attributes:
      class_names: the name of each label.
    """

    def __init__(self, raw: Any, split: str, class_names: tuple[str, ...]):
        self.class_names = class_names
        self._raw, self._split = raw, split

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> Record:
        """Raises `InputError` for a label outside the classes (ImageNet's test split has none)."""
        from tensorflow_datasets.proto import tf_example_pb2

        feature = tf_example_pb2.Example.FromString(self._raw[index]).features.feature
        label = feature["label"].int64_list.value[0]
        named = next((key for key in _NAMING if key in feature), None)
        stored = feature[named].bytes_list.value if named else ()
        name = stored[0].decode(errors="replace") if stored else f"{self._split}[{index}]"
        if not 0 <= label < len(self.class_names):
            raise InputError(
                f"dataset: {name} has label {label}, classes are 0..{len(self.class_names) - 1}"
            )
        return Record(feature["image"].bytes_list.value[0], label, name)


def check(name: str, splits: Iterable[str], *, data_dir: str | None) -> None:
    """Finds what is wrong with a choice of data before anything is read or downloaded.

    Raises:
      InputError: for what `open` would refuse, except missing files.
    """
    if name in tfds_sets.NOT_TFDS:
        raise InputError(
            f"dataset.name={name!r}: is not streamed; `python -m experiments.prepare_data "
            "--dataset=NAME --source=TREE` makes a set of a tree of pictures that is"
        )
    builder = tfds_sets.open_builder(name, data_dir)
    tfds_sets.check_features(name, builder.info.features)
    for split in splits:
        split_syntax.resolve(name, split, tfds_sets.splits_of(name, builder))


def open(name: str, split: str, data_dir: str | None = None) -> Records:
    """Opens a split of a TFDS image set that is prepared as ArrayRecord; reads no picture.

    `imagenet2012`, `imagenette`, a folder of pictures that `experiments.prepare_data` converted, or
    any other set with an `image` and a `label`, of whatever sizes. Small sets that TFDS can
    download are prepared if need be, as by `sources.load`.

    Args:
      name: the set, and config and version if need be, as TFDS writes them.
      split: a split in TFDS's syntax.
      data_dir: TFDS's folder of data sets; None is TFDS's own.

    Raises:
      InputError: there is no such set or split, a file of it is missing, or it has other features.
    """
    if name in raw_readers.NUM_EXAMPLES:
        from resnet_jax.data import small

        small.prepare(name, data_dir)
    check(name, [split], data_dir=data_dir)
    builder = tfds_sets.open_builder(name, data_dir)
    raw = tfds_sets.raw_records(builder, split)
    return Records(raw, split, tuple(builder.info.features["label"].names))
