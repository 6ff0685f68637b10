"""Images in folders: `<split>/<class>/*.png`, one folder a class."""

import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.data import image_ops, splits
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_OTHER_IMAGES: tuple[str, ...] = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
_OTHER_IMAGES += (".jp2", ".jxl", ".jpe", ".jfif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga")
_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_READ_WHOLE, _END = 2**28, 2**16  # bytes
_LISTED = 20  # broken files, or classes, that a message names


class Listing(NamedTuple):
    """The images of a split, sorted by class and name.

    Attributes:
      paths: of the images.
      labels: int32 [N].
      left_out: what was seen beside them and is not used, and how often, by the reason.
    """

    paths: list[Path]
    labels: np.ndarray
    left_out: Counter[str]


class ImageFolder:
    """Images in one folder a class, converted to RGB and fitted to squares.

    The order within a split is a fixed permutation, because images listed by class would make
    slices such as `train[:80%]` lack classes.

    Attributes:
      listings: by split.
      splits: a `tfds.core.SplitInfo` of each.
      class_names: by label: the folders in `train`, sorted.
      image_shape: (height, width, channels); None without an `image_size`.
    """

    def __init__(self, data_dir: str | None, image_size: int | None = None, upright: bool = False):
        """Lists the files; reads none.

        Args:
          data_dir: the folder with train/ and, if there are any, validation/ (or val/) and test/.
          image_size: side in pixels of the squares.
          upright: whether the EXIF orientation is applied.

        Raises:
          InputError: there is no such tree, or it is not one to learn from.
        """
        if data_dir is None:
            raise InputError("image_folder: data_dir=None; wanted the folder with train/ and test/")
        self.class_names, self.listings = list_tree(Path(data_dir).expanduser())
        self.splits = splits.infos({name: len(part.paths) for name, part in self.listings.items()})
        self.image_shape = (image_size, image_size, 3) if image_size else None
        self._upright = upright

    def files(self, split: str, start: int, stop: int) -> tuple[list[Path], np.ndarray]:
        """The images of a part of a split, in its order, and their labels, int32 [N]."""
        paths, labels, _ = self.listings[split]
        # Raw bits, not a Generator's methods: only they are the same in all versions of NumPy.
        bits = np.random.Philox(key=0).random_raw(len(paths))
        chosen = np.argsort(bits, kind="stable")[start:stop]
        return [paths[i] for i in chosen], labels[chosen]

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 [n, size, size, 3], and labels, int32 [n], of positions in a split."""
        paths, labels = self.files(split, start, stop)
        assert self.image_shape  # else `datasets.check` has refused
        return read_files(paths, self.image_shape, fit=True, upright=self._upright), labels

    def fingerprint(self, split: str) -> dict[str, Any]:
        """What tells a split from another: its images, their sizes, and how many a class has."""
        paths, labels, _ = self.listings[split]
        counts = np.bincount(labels, minlength=len(self.class_names)).tolist()
        return {
            **fingerprint(paths),
            "classes": dict(zip(self.class_names, counts, strict=True)),
        }


def list_tree(root: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """The classes of a tree of images, and its splits.

    Raises:
      InputError: there are not two classes to tell apart, a split has other classes than `train` or
        lies there twice, or a class folder is empty.
    """
    classes = class_names(root / "train")
    if len(classes) == 1:
        raise InputError(
            f"{root / 'train'}: a single class, {classes[0]!r}; a classifier needs two at least"
        )
    found = {}
    for split, names in _FOLDERS.items():
        folders = [root / name for name in names if (root / name).is_dir()]
        if len(folders) > 1:
            wrong = " and ".join(f"{folder.name}/" for folder in folders)
            raise InputError(f"{root}: has {wrong}, both for the {split} split; keep one of them")
        if folders:
            found[split] = list_images(folders[0], classes)
    found["train"].left_out.update(_in_no_split(root, classes))
    return classes, found


def _in_no_split(root: Path, classes: tuple[str, ...]) -> Counter[str]:
    """Images in folders that have classes, as splits do, under names that are none of theirs."""
    read = [root / name for name in itertools.chain(*_FOLDERS.values()) if (root / name).is_dir()]
    wanted = ", ".join(" or ".join(f"{name}/" for name in names) for names in _FOLDERS.values())
    found: Counter[str] = Counter()
    for entry in os.scandir(root):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        _, folders, _ = next(os.walk(entry.path), ("", (), ()))  # nothing if it cannot be read
        # By another name if it is a link, or on a disk that takes Val/ for val/.
        is_read = any(path.samefile(entry.path) for path in read)
        if not is_read and not set(classes).isdisjoint(folders):
            found[f"in {entry.name}/, no split (read are {wanted})"] = _count(entry)
    return +found  # without zeros


def class_names(split_dir: Path) -> tuple[str, ...]:
    """The class folders of a split in sorted order.

    Raises `InputError` if there is none or if a name is not UTF-8 (results are written as UTF-8).
    """
    if not split_dir.is_dir():
        raise InputError(f"{split_dir}: no such folder; wanted {split_dir.name}/<class>/<image>")
    names = [entry.name for entry in os.scandir(split_dir) if entry.is_dir()]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{split_dir}: folder {os.fsencode(name)!r} is not UTF-8") from error
    names = sorted(name for name in names if not name.startswith("."))
    if not names:
        raise InputError(f"{split_dir}: no class folders; wanted {split_dir.name}/<class>/<image>")
    return tuple(names)


def list_images(split_dir: Path, classes: tuple[str, ...]) -> Listing:
    """The images of a split.

    Raises `InputError` for a class folder that is not in `classes` and for an empty one.
    """
    paths, labels = [], []
    left_out: Counter[str] = Counter()
    names = class_names(split_dir)
    for entry in os.scandir(split_dir):
        reason = "" if entry.is_dir() else _why_not(entry)
        if reason != "":
            left_out[reason or f"directly in {split_dir.name}/, not in a class folder"] += 1
    for name in names:
        if name not in classes:
            raise InputError(f"{split_dir / name}: not a class; classes are {', '.join(classes)}")
        images = []
        for entry in os.scandir(split_dir / name):
            reason = _why_not(entry)
            if reason is None:
                images.append(entry.name)
            elif reason:
                left_out[reason] += _count(entry)
        left_out += Counter()  # without zeros
        if not images:
            beside = f"; there is {tell(left_out)}" if left_out else ""
            raise InputError(f"{split_dir / name}: no images ({', '.join(SUFFIXES)}){beside}")
        paths += [split_dir / name / image for image in sorted(images)]
        labels += [classes.index(name)] * len(images)
    return Listing(paths, np.array(labels, np.int32), left_out)


def left_out(listings: dict[str, Listing]) -> Counter[str]:
    """What lies in a tree and is not used, and how often, by the reason."""
    return sum((part.left_out for part in listings.values()), Counter())


def tell(left_out: Counter[str]) -> str:
    """In words what a listing left out: "2 images in folders within a class folder, …"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))


def lacking(classes: tuple[str, ...], listings: dict[str, Listing]) -> list[str]:
    """A line for each split that has no image of some classes: "no test images of: cat, dog"."""
    lines = []
    for split, part in listings.items():
        names = [classes[label] for label in np.setdiff1d(range(len(classes)), part.labels)]
        if names:
            more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
            lines.append(f"no {split} images of: {', '.join(names[:_LISTED])}{more}")
    return lines


def _why_not(entry: os.DirEntry) -> str | None:
    """Why an entry of a class folder is not an example: None if it is one, "" if nobody asks."""
    name = entry.name.lower()
    is_image = name.endswith(SUFFIXES)
    if entry.is_dir():
        return "" if name.startswith(".") else "in folders within a class folder"
    if name.startswith("."):
        return "hidden (such as macOS's ._*)" if is_image else ""
    if is_image:
        return None
    if name.endswith(_OTHER_IMAGES):
        return f"of type {Path(name).suffix} (read are {', '.join(SUFFIXES)})"
    return ""


def _count(entry: os.DirEntry) -> int:
    """How many images an entry that is left out stands for."""
    if not entry.is_dir():
        return 1
    endings = SUFFIXES + _OTHER_IMAGES
    return sum(
        name.lower().endswith(endings) and not name.startswith(".")
        for _, _, files in os.walk(entry.path)
        for name in files
    )


def fingerprint(paths: Sequence[Path]) -> dict[str, Any]:
    """The number of some files, their bytes, and a digest of their names, sizes and contents.

    Of more than a quarter of a gigabyte not all content is read, but the beginnings and ends of 256
    files, evenly spread.

    Raises `InputError` if one cannot be read.
    """
    digest, total = hashlib.blake2b(digest_size=16), 0
    try:
        sizes = [path.stat().st_size for path in paths]
        total = sum(sizes)
        for path, size in zip(paths, sizes, strict=True):
            digest.update(os.fsencode(f"{path.parent.name}/{path.name}\0{size}\0"))
        is_small = total <= _READ_WHOLE
        spread = np.linspace(0, len(paths) - 1, min(len(paths), 256)).astype(int)
        for index in range(len(paths)) if is_small else spread:
            with paths[index].open("rb") as file:
                if is_small:
                    digest.update(file.read())
                else:
                    digest.update(file.read(_END))
                    file.seek(max(0, sizes[index] - _END))
                    digest.update(file.read(_END))
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error
    return {"files": len(paths), "bytes": total, "digest": digest.hexdigest()}


def find(paths: Iterable[Path]) -> list[Path]:
    """The paths, with the images in it and in its folders, by name, in place of each folder.

    Hidden files and folders, such as .ipynb_checkpoints, are passed over.
    """
    found: list[Path] = []
    for path in paths:
        found += (sorted(_inside(path, SUFFIXES)) if path.is_dir() else ()) or [path]
    return found


def passed_over(folder: Path) -> str:
    """In words how many images of other types `find` leaves out: "2 .gif, 1 .heic", or ""."""
    return tell(Counter(path.suffix.lower() for path in _inside(folder, _OTHER_IMAGES)))


def _inside(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """What has such a name in a folder and in its folders, and is not hidden there."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.name.lower().endswith(endings) and not any(part[0] == "." for part in parts):
            yield path


def read_file(path: Path, label: int = 0) -> EncodedImage:
    """A file as it is, "-" from standard input; raises `InputError` if it cannot be read."""
    try:
        encoded = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return EncodedImage(encoded, label, str(path))
    except IsADirectoryError as error:
        others = passed_over(path)
        beside = f"; there is {others}" if others else ""
        raise InputError(
            f"{path}: no images in it (read are {', '.join(SUFFIXES)}){beside}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def read_files(
    paths: Sequence[Path], shape: tuple[int, int, int], *, fit: bool = False, upright: bool = False
) -> np.ndarray:
    """Images of a [height, width, channels] `shape`, or fitted to such squares: uint8 [N, *shape].

    Raises `InputError`, naming the files, for images that are broken or of another size.
    """
    images = np.empty((len(paths), *shape), np.uint8)

    def read_into(index: int) -> None:
        pixels = read_file(paths[index]).decode(shape[-1], upright=upright)
        pixels = image_ops.centre_square(pixels, shape[0]) if fit else pixels
        if pixels.shape != shape:
            found, wanted = (f"{side[1]}×{side[0]}" for side in (pixels.shape, shape))
            raise InputError(f"{paths[index]}: {found} pixels; wanted {wanted}")
        images[index] = pixels

    for_each(read_into, len(paths))
    return images


def for_each(function: Callable[[int], object], count: int) -> None:
    """Calls `function` with 0, 1, … up to `count` in threads.

    Raises one `InputError` with all that it raised, so that broken files are all named at once.
    """

    def mistake(index: int) -> str | None:
        try:
            function(index)
        except InputError as error:
            return str(error)
        return None

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            mistakes = [text for text in pool.map(mistake, range(count)) if text]
        finally:
            pool.shutdown(cancel_futures=True)
    if mistakes:
        raise InputError(_together(mistakes))


def _together(mistakes: Iterable[str]) -> str:
    mistakes = list(mistakes)
    count = f"{len(mistakes):,} broken: " if len(mistakes) > 1 else ""
    more = f"; and {len(mistakes) - _LISTED:,} more" if len(mistakes) > _LISTED else ""
    return count + "; ".join(mistakes[:_LISTED]) + more
