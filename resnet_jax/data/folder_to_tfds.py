"""A tree of images becomes a TFDS set in ArrayRecord, without TensorFlow.

The files' bytes and names are kept: nothing is decoded and encoded again. The set has the features
of TFDS's `imagenet2012` (image, label, file_name) and is read by `tfds.data_source`.
"""

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.utils import version

from resnet_jax.data import image_folder, small, tfds_sets
from resnet_jax.data.image_folder import Listing
from resnet_jax.errors import InputError

_VERSION = "1.0.0"
_SOURCE = "resnet_jax_source"  # key of TFDS's metadata
_SPARE = 1.02  # of the files' sizes, for what ArrayRecord adds


def find(name: str, data_dir: str | None = None) -> tfds.core.DatasetInfo | None:
    """What TFDS knows of a prepared set `name`, else None.

    Raises `InputError` for other names, and if there is a later version, which training would open.
    """
    if name in tfds_sets.NOT_TFDS:
        raise InputError(f"dataset={name!r}: is not prepared; give the set a name of its own")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"dataset={name!r}: wanted small letters, digits and underscores")
    versions = version.list_all_versions(_data_dir(data_dir) / name)
    folder = _data_dir(data_dir) / name / _VERSION
    if versions and versions[-1] > _VERSION:
        raise InputError(
            f"{folder.with_name(str(versions[-1]))}: is there already and would be used; give the "
            "set another name"
        )
    if not folder.exists():
        tfds_sets.check_data_dir(data_dir)
        return None
    if not (folder / "dataset_info.json").exists():
        raise InputError(f"{folder}: not a prepared data set; remove or rename it")
    return tfds_sets.open_builder(name, data_dir).info


def prepare(name: str, data_dir: str | None, source: str) -> tfds.core.DatasetInfo:
    """Writes the images in `<source>/{train,validation or val,test}/<class>/` as the set `name`.

    Every image is decoded once, so that broken ones are found now and not in mid-training.

    Args:
      name: of the set, in small letters, digits and underscores.
      data_dir: TFDS's folder of data sets; None is TFDS's default.
      source: the tree; `train` must be there.

    Raises:
      InputError: for a tree without images or with one class, for classes outside those in `train`,
        for names that TFDS would not keep, for broken images, all of them named, for a disk too
        full, and for a set of that name that was prepared from other images. Nothing is left that
        looks prepared.
    """
    info = find(name, data_dir)
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(f"source={source!r}: not a folder")
    classes, listings = image_folder.list_tree(root)
    _check_names(root / "train", classes, listings)
    sizes = {split: len(part.paths) for split, part in listings.items()}
    files = {split: image_folder.fingerprint(part.paths) for split, part in listings.items()}
    made_from = {split: part["digest"] for split, part in files.items()}
    if info is not None:
        if not _is_of(info, classes, sizes, made_from):
            raise InputError(
                f"{info.data_dir}: was prepared from other images than source={source!r}; give the "
                "set another name, or remove the folder and prepare it again"
            )
        return info
    counts = ", ".join(f"{split} {count:,}" for split, count in sizes.items())
    print(f"{source}: images: {counts}; {len(classes)} classes")
    left_out = image_folder.left_out(listings)
    if left_out:
        print(f"left out: {image_folder.tell(left_out)}")
    for line in image_folder.lacking(classes, listings):
        print(line)
    _check_space(name, _data_dir(data_dir), sum(part["bytes"] for part in files.values()))
    for part in listings.values():
        read = lambda index, paths=part.paths: image_folder.read_file(paths[index]).decode()
        image_folder.for_each(read, len(part.paths))
    builder = _Tree(name, _data_dir(data_dir), classes, listings, {_SOURCE: made_from})
    if not small.write(builder, f"from {root}"):
        return prepare(name, data_dir, source)  # It is there now: of the same images?
    return find(name, data_dir)


def _check_names(folder: Path, classes: tuple[str, ...], listings: dict[str, Listing]) -> None:
    """Raises `InputError` for what TFDS would not keep: its classes are the lines of a file."""
    for name in classes:
        if name.splitlines() != [name.strip()]:
            raise InputError(
                f"{folder}: class folder {name!r}: has a line break or a space at an end; rename it"
            )
    for path in itertools.chain.from_iterable(part.paths for part in listings.values()):
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            stored = os.fsencode(path.name)
            raise InputError(f"{path.parent}: file {stored!r} is not UTF-8; rename it") from error


def _is_of(info: tfds.core.DatasetInfo, classes: tuple, sizes: dict, made_from: dict) -> bool:
    """Whether a set was prepared from these files; of sets that do not say so, whether it seems."""
    if info.metadata and _SOURCE in info.metadata:
        return info.metadata[_SOURCE] == made_from
    found = {split: part.num_examples for split, part in info.splits.items()}
    return found == sizes and tuple(info.features["label"].names) == classes


def _check_space(name: str, data_dir: Path, num_bytes: int) -> None:
    place = Path(data_dir)
    while not place.exists():
        place = place.parent
    copies = 1 if num_bytes < shuffle.MAX_MEM_BUFFER_SIZE else 2  # the other to sort them
    free, wanted = shutil.disk_usage(place).free, int(num_bytes * copies * _SPARE)
    if wanted > free:
        raise InputError(
            f"{name}: takes {wanted / 1e9:,.3f} GB, the disk of {data_dir} has {free / 1e9:,.3f} GB"
        )


def _data_dir(data_dir: str | None) -> epath.Path:
    return epath.Path(tfds_sets.expand(data_dir) or tfds.core.constants.DATA_DIR)


# TFDS is not typed: to mypy this base has no arguments.
class _Tree(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    VERSION = tfds.core.Version(_VERSION)

    def __init__(
        self,
        name: str,
        data_dir: epath.Path,
        classes: tuple[str, ...],
        listings: dict[str, Listing],
        about: dict[str, Any],
    ):
        self.name = name
        self._classes, self._listings, self._about = classes, listings, about
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=self._classes),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self._about),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(part) for split, part in self._listings.items()}

    def _generate_examples(self, listing: Listing) -> Iterator[tuple[str, dict]]:
        for path, label in zip(listing.paths, listing.labels, strict=True):
            # The hash of the key decides the stored order, as in TFDS's own sets.
            yield (
                f"{path.parent.name}/{path.name}",
                {"image": path.read_bytes(), "label": int(label), "file_name": path.name},
            )
