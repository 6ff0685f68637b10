"""A tree of pictures becomes a TFDS set in ArrayRecord, without TensorFlow.

The files' bytes and names are kept: nothing is decoded and encoded again. The set has the features
of TFDS's `imagenet2012` (image, label, file_name) and is read by `tfds.data_source`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from resnet_jax.data import image_folder, image_ops, small
from resnet_jax.errors import InputError

_VERSION = "1.0.0"
_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def find(name: str, data_dir: str | None = None) -> tfds.core.DatasetInfo | None:
    """What TFDS knows of a prepared set `name`, else None; raises `InputError` for other names."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"dataset={name!r}: wanted small letters, digits and underscores")
    folder = _data_dir(data_dir) / name / _VERSION
    if not folder.exists():
        return None
    if not (folder / "dataset_info.json").exists():
        raise InputError(f"{folder}: not a prepared data set; remove or rename it")
    builder = tfds.builder_from_directory(folder)
    small.require_array_record(builder)
    return builder.info


def prepare(name: str, data_dir: str | None, source: str) -> tfds.core.DatasetInfo:
    """Writes the pictures in `<source>/{train,validation or val,test}/<class>/` as the set `name`.

    Every picture is decoded once, so that a broken one is found now and not in mid-training.

    Args:
      name: of the set, in small letters, digits and underscores.
      data_dir: TFDS's folder of data sets; None is TFDS's default.
      source: the tree; `train` must be there.

    Raises:
      InputError: for a tree without pictures, for classes outside those in `train`, and for a
        picture that is broken. Nothing is left that looks prepared.
    """
    info = find(name, data_dir)
    if info is not None:
        return info
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(f"source={source!r}: not a folder")
    classes = image_folder.class_names(root / "train")
    pictures = {
        split: image_folder.list_pictures(root / folder, classes)
        for folder, split in _FOLDERS.items()
        if (root / folder).is_dir()
    }
    builder = _Tree(name, _data_dir(data_dir), classes, pictures)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        # TFDS rewords what a generator raises.
        raise builder.mistake or error from error
    return find(name, data_dir)


def _data_dir(data_dir: str | None) -> epath.Path:
    return epath.Path(small.expand(data_dir) or tfds.core.constants.DATA_DIR)


class _Tree(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, name: str, data_dir: epath.Path, classes: tuple[str, ...], pictures: dict):
        self.name, self.mistake = name, None
        self._classes, self._pictures = classes, pictures
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=self._classes),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager
        return {name: self._generate_examples(*part) for name, part in self._pictures.items()}

    def _generate_examples(self, paths: list[Path], labels: Any) -> Iterator[tuple[str, dict]]:
        for path, label in zip(paths, labels, strict=True):
            data = path.read_bytes()
            try:
                image_ops.decode(data)
            except image_ops.UnreadablePicture as error:
                self.mistake = InputError(f"{path}: unreadable picture ({error})")
                raise self.mistake from error
            # The hash of the key decides the stored order, as in TFDS's own sets.
            yield (
                f"{path.parent.name}/{path.name}",
                {"image": data, "label": int(label), "file_name": path.name},
            )
