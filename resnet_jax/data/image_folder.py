"""Pictures in folders: `<split>/<class>/*.png`, one folder a class."""

import os
from collections.abc import Iterable
from concurrent import futures
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_jax.data import image_ops, split_syntax
from resnet_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SPLITS = ("train", "validation", "test")


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
        self.class_names = class_names(root / "train")
        self._pictures = {
            split: list_pictures(root / split, self.class_names)
            for split in _SPLITS
            if (root / split).is_dir()
        }
        sizes = {split: len(paths) for split, (paths, _) in self._pictures.items()}
        self.splits = split_syntax.infos(sizes)

    def files(self, split: str, start: int, stop: int) -> tuple[list[Path], np.ndarray]:
        """The pictures of a part of a split, in its order, and their labels, int32 [N]."""
        paths, labels = self._pictures[split]
        # Raw bits, not a Generator's methods: only they are the same in all versions of NumPy.
        bits = np.random.Philox(key=0).random_raw(len(paths))
        chosen = np.argsort(bits, kind="stable")[start:stop]
        return [paths[i] for i in chosen], labels[chosen]

    def read(self, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        paths, labels = self.files(split, start, stop)
        return read_square(paths, self.image_size), labels


def class_names(split_dir: Path) -> tuple[str, ...]:
    """The class folders of a split in sorted order.

    Raises `InputError` if there is none or if a name is not UTF-8 (results are written as UTF-8).
    """
    if not split_dir.is_dir():
        raise InputError(f"{split_dir}: no such folder; wanted {split_dir.name}/<class>/<picture>")
    names = [entry.name for entry in os.scandir(split_dir) if entry.is_dir()]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{split_dir}: folder {os.fsencode(name)} is not UTF-8") from error
    names = sorted(name for name in names if not name.startswith("."))
    if not names:
        raise InputError(
            f"{split_dir}: no class folders; wanted {split_dir.name}/<class>/<picture>"
        )
    return tuple(names)


def list_pictures(split_dir: Path, classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """The pictures of a split, sorted by class and name, and their labels, int32 [N].

    Raises `InputError` for a class folder that is not in `classes` and for an empty one.
    """
    paths, labels = [], []
    for name in class_names(split_dir):
        if name not in classes:
            raise InputError(f"{split_dir / name}: not a class; classes are {', '.join(classes)}")
        entries = [entry.name for entry in os.scandir(split_dir / name) if entry.is_file()]
        pictures = sorted(name for name in entries if name.lower().endswith(SUFFIXES))
        if not pictures:
            raise InputError(f"{split_dir / name}: no pictures ({', '.join(SUFFIXES)})")
        paths += [split_dir / name / picture for picture in pictures]
        labels += [classes.index(name)] * len(pictures)
    return paths, np.array(labels, np.int32)


def decode(path: Path, mode: str) -> Image.Image:
    """One picture in Pillow's `mode` ("L" or "RGB").

    Raises `InputError`, naming the file, if it cannot be read or has more than 8 bits a channel.
    """
    try:
        return image_ops.decode_with_pillow(path.read_bytes(), mode)
    except image_ops.UnreadablePicture as error:
        raise InputError(f"{path}: unreadable picture ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def fit_square(picture: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` pixels (bilinear, antialiased) and crops the centre."""
    width, height = picture.size
    scale = size / min(width, height)
    scaled = (max(size, round(width * scale)), max(size, round(height * scale)))
    if scaled != picture.size:
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return picture.crop((left, top, left + size, top + size))


def read_square(paths: Iterable[Path], size: int) -> np.ndarray:
    """Pictures in RGB, fitted to squares: uint8 [N, size, size, 3]."""
    paths = list(paths)
    images = np.empty((len(paths), size, size, 3), np.uint8)

    def read_into(index: int) -> None:
        images[index] = np.asarray(fit_square(decode(paths[index], "RGB"), size))

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(read_into, index) for index in range(len(paths))]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return images


def read_exact(paths: Iterable[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Pictures that have the [height, width, channels] `shape` already: uint8 [N, *shape].

    Raises `InputError`, naming the file, for a picture of another size.
    """
    height, width, channels = shape
    paths = list(paths)
    images = np.empty((len(paths), *shape), np.uint8)
    for image, path in zip(images, paths, strict=True):
        picture = decode(path, "L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            found = "×".join(map(str, picture.size))
            raise InputError(f"{path}: {found} pixels; wanted {width}×{height}")
        image[:] = np.asarray(picture).reshape(shape)
    return images
