"""TFDS's own small image sets, prepared without TensorFlow.

TFDS reads ArrayRecord without TensorFlow but its builders write with it. The builders here are
TFDS's, with their names, versions, features, URLs and checksums; only the step that reads the
original files and encodes images is replaced, by NumPy and Pillow. What they prepare is read by
`tfds.data_source` like any other data set.
"""

import contextlib
import hashlib
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import requests
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core import registered, shuffle
from tensorflow_datasets.core.download import download_manager
from tensorflow_datasets.core.download import util as download_util

from resnet_jax.data import image_folder, raw_readers
from resnet_jax.data.tfds_sets import TfdsSet, expand, find
from resnet_jax.errors import InputError
from resnet_jax.runs import lockfile

NAMES = tuple(raw_readers.NUM_EXAMPLES)
_ID_FORMATS = {"cifar10": "{}_{:05d}", "cifar100": "{}_{:05d}", "svhn_cropped": "{}_{:06d}"}


def prepare(
    name: str, data_dir: str | None = None, source: str | None = None
) -> tfds.core.DatasetInfo:
    """Prepares the set `name` as ArrayRecord in `data_dir`, unless it is there already.

    Args:
      name: one of `NAMES`.
      data_dir: TFDS's folder of data sets; None is TFDS's default.
      source: a folder that holds the original files, packed or unpacked, or a tree of images
        `<split>/<class>/*.png` (a slash in a class name is an underscore); None downloads.

    Raises:
      InputError: for files that are missing, broken or not this set's, if a download fails, if the
        disk is full, and if the set is there already and holds other images than `source`.
        Nothing is left that looks prepared.
    """
    info = find(name, data_dir)
    folder = Path(source).expanduser() if source is not None else None
    if folder is not None and not folder.is_dir():
        raise InputError(f"source={source!r}: not a folder")
    if info is None:
        builder = _builder(name, data_dir, folder)
        if folder is not None and builder.is_tree(folder):
            print(
                f"{name}: from a tree, so in another order than TFDS's: parts such as "
                "train[:45000] have other images"
            )
        if not write(builder, f"from {folder}" if folder else "download"):
            return prepare(name, data_dir, source)  # It is there now: of the same images?
        return find(name, data_dir)
    if folder is not None and not _holds(name, data_dir, folder):
        raise InputError(
            f"{info.data_dir}: holds other images than source={source!r}; give another data_dir, "
            "or remove the folder and prepare it again"
        )
    return info


def _holds(name: str, data_dir: str | None, source: Path) -> bool:
    """Whether a prepared set has the images and labels of a source, in whatever order."""
    stored = TfdsSet(name, data_dir)
    for split, data in _builder(name, data_dir, source).read_source(source).items():
        if split not in stored.splits or stored.splits[split].num_examples != len(data.images):
            return False
        images, labels = stored.read(split, 0, len(data.images))
        if _content(images, labels) != _content(data.images, data.labels["label"]):
            return False
    return True


def _content(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """What examples are, whatever their order."""
    digest = lambda image, label: hashlib.blake2b(
        image.tobytes(), digest_size=16, salt=int(label).to_bytes(4, "big")
    ).digest()
    return sorted(map(digest, images, labels))


def write(builder: tfds.core.DatasetBuilder, how: str) -> bool:
    """Prepares a set as ArrayRecord. A failure leaves nothing behind but finished downloads.

    Several processes may need the set at once, as the runs of a sweep do: one of them prepares it.

    Args:
      builder: of the set.
      how: for the user: "download", or where the images come from.

    Returns:
      Whether it was this process.

    Raises:
      InputError: the folder cannot be written, or its disk is full.
    """
    folder, root = Path(builder.data_dir), Path(builder.data_dir_root)
    downloads = root / "downloads"
    places = (downloads / "extracted", downloads, folder.parent, root, *root.parents)
    made = [place for place in places if not place.exists()]
    waiting = f"{builder.name}: waiting for another process, which prepares it"
    done = False
    try:
        with lockfile.turn(root / f".{builder.name}.lock", waiting):
            if folder.exists():
                return False
            print(f"preparing {builder.name} in {folder} ({how})", flush=True)
            with _quietly(), mock.patch.object(shuffle, "_Bucket", _Bucket):
                builder.download_and_prepare(
                    file_format="array_record",
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                )
        done = True
    except InputError:
        raise
    except (OSError, RuntimeError) as error:
        if folder.exists():  # Not every file system can lock: both prepared it, the other finished.
            return False
        reason = _storage(error)
        if reason is None:
            raise
        raise InputError(f"{builder.name}: cannot prepare {folder} ({reason})") from error
    finally:
        for place in made[:2] if done else made:
            with contextlib.suppress(OSError):  # It is in use, or gone.
                place.rmdir()
    return True


class _Bucket:
    """One of the files in which TFDS sorts more than a gigabyte; its own need TensorFlow."""

    def __init__(self, path: epath.Path):
        self._path, self._length, self.size = path, 0, 0

    def __len__(self) -> int:
        return self._length

    def add(self, key: int, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not kept open: there are as many buckets as a process may often have files.
        with self._path.open("ab") as file:
            file.write(key.to_bytes(16, "big") + len(data).to_bytes(8, "big") + data)
        self._length += 1
        self.size += len(data)

    def read_values(self) -> Iterator[tuple[int, bytes]]:
        if self._length:
            with self._path.open("rb") as file:
                while key := file.read(16):
                    size = int.from_bytes(file.read(8), "big")
                    yield int.from_bytes(key, "big"), file.read(size)

    def del_file(self) -> None:
        self._path.unlink(missing_ok=True)


def _storage(error: BaseException) -> str | None:
    """What is wrong with the disk; ArrayRecord says it in the text of a RuntimeError."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = ("No space left on device", "Disk quota exceeded", "Read-only file system")
    failed = ("Permission denied", "Input/output error", "File too large")
    return next((reason for reason in full + failed if reason in str(error)), None)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """TFDS says "Downloading" whatever it does, and draws bars into files, too."""
    bars = sys.stderr.isatty()
    if not bars:
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if not bars:
            tfds.enable_progress_bar()


def _builder(name: str, data_dir: str | None, source: Path | None) -> tfds.core.DatasetBuilder:
    """TFDS's builder of `name` with the reading of original files replaced."""
    stock = tfds.builder_cls(name)
    with registered.skip_registration():
        # TFDS finds checksums and metadata by the name of a builder and of its module.
        cls = types.new_class(
            stock.__name__,
            (_ReadsWithoutTensorFlow, stock),
            exec_body=lambda body: body.update(name=name, __module__=stock.__module__),
        )
    return cls(data_dir=expand(data_dir), source=source)


def _published() -> dict[str, str]:
    """The set of each original file, by SHA-256: those of the MNISTs have the same names."""
    return {
        info.checksum: name for name in NAMES for info in tfds.builder_cls(name).url_infos.values()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _ReadsWithoutTensorFlow:
    """Goes before a stock builder: where its examples come from, as PNG bytes."""

    name: str  # as the stock builder has it
    info: Any
    url_infos: dict[str, Any]
    data_dir_root: Path

    def __init__(self, *, source: Path | None, **kwargs: Any):
        super().__init__(**kwargs)
        self._source = source

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # Everything is read and checked here, not lazily in the generators, because TFDS rewords
        # what a generator raises.
        if self._source is None:
            splits = raw_readers.read(self.name, self._download(dl_manager))
        else:
            splits = self.read_source(self._source)
        if "cifar" in self.name:
            self._name_cifar_classes()
        return {split: self._generate_examples(split, data) for split, data in splits.items()}

    def _generate_examples(
        self, split: str, data: raw_readers.Original
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # The key is the position, as in TFDS's own builders: its hash decides the stored order.
        for index, image in enumerate(data.images):
            example = {kind: labels[index] for kind, labels in data.labels.items()}
            example["image"] = _encode_png(image)
            if self.name in _ID_FORMATS:
                example["id"] = _ID_FORMATS[self.name].format(split, index)
            yield index, example

    def _download(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Path]:
        urls = {info.filename: url for url, info in self.url_infos.items()}
        is_first_time = not any((self.data_dir_root / "downloads" / self.name).glob("*.INFO"))
        try:
            if is_first_time:
                # Without a network, TFDS would retry for minutes.
                requests.head(next(iter(urls.values())), timeout=10)
            return {name: Path(path) for name, path in dl_manager.download(urls).items()}
        except (
            OSError,
            download_util.DownloadError,
            download_manager.NonMatchingChecksumError,
        ) as error:
            raise InputError(
                f"{self.name}: download failed ({type(error).__name__}); fetch "
                f"{' '.join(urls.values())} into a folder DIR by other means and run "
                f"`python -m experiments.prepare_data --dataset={self.name} --source=DIR "
                f"--data_dir={self.data_dir_root}`"
            ) from error

    def read_source(self, source: Path) -> dict[str, raw_readers.Original]:
        """The splits in the folder `source`; raises `InputError`."""
        wanted = [info.filename for info in self.url_infos.values()]
        files = raw_readers.locate(source, wanted)
        if self.is_tree(source):
            return {split: self._read_tree(source, split) for split in self._num_examples}
        missing = [name for name in wanted if name not in files]
        if missing:
            raise InputError(
                f"{source}: missing {', '.join(missing)}, packed or unpacked; the other way is "
                f"images in {', '.join(f'{split}/<class>/' for split in self._num_examples)}"
            )
        published = _published()
        for name, path in files.items():
            other = published.get(_sha256(path)) if path.name == name else None
            if other not in (None, self.name):
                raise InputError(
                    f"{path}: {other}'s file, which has the same name; not {self.name}'s"
                )
        return raw_readers.read(self.name, files)

    def is_tree(self, source: Path) -> bool:
        """Whether the folder `source` has images, and no original file."""
        wanted = (info.filename for info in self.url_infos.values())
        return (source / "train").is_dir() and not raw_readers.locate(source, wanted)

    def _read_tree(self, source: Path, split: str) -> raw_readers.Original:
        folders = tuple(name.replace("/", "_") for name in self._class_names)
        missing = sorted(set(folders) - set(image_folder.class_names(source / split)))
        if missing:
            raise InputError(f"{source / split}: class folder {missing[0]} is missing")
        paths, labels, _ = image_folder.list_images(source / split, folders)
        if len(paths) != self._num_examples[split]:
            raise InputError(
                f"{source / split}: {len(paths)} images, {self.name} has "
                f"{self._num_examples[split]} in this split"
            )
        images = image_folder.read_files(paths, self.info.features["image"].shape)
        kinds = {"label": labels.astype(np.int64)}
        if self.name == "cifar100":
            kinds["coarse_label"] = raw_readers.coarse_labels(labels)
        return raw_readers.Original(images, kinds)

    def _name_cifar_classes(self) -> None:
        self.info.features["label"].names = list(self._class_names)
        if self.name == "cifar100":
            coarse = self.info.features["coarse_label"]
            coarse.names = list(raw_readers.CIFAR100_SUPERCLASSES)

    @property
    def _class_names(self) -> tuple[str, ...]:
        return raw_readers.CLASSES.get(self.name) or tuple(self.info.features["label"].names)

    @property
    def _num_examples(self) -> dict[str, int]:
        return raw_readers.NUM_EXAMPLES[self.name]


def _encode_png(image: np.ndarray) -> bytes:
    """A PNG of a uint8 image [height, width, 1 or 3]."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(stream, "PNG")
    return stream.getvalue()
