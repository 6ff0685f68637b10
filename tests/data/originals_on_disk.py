"""The small benchmarks' original files with a handful of random examples, and trees of pictures."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from resnet_jax.data import small
from resnet_jax.errors import InputError

SIZES = {
    "cifar10": {"train": 10, "test": 4},
    "cifar100": {"train": 9, "test": 3},
    "mnist": {"train": 6, "test": 3},
    "fashion_mnist": {"train": 6, "test": 3},
    "kmnist": {"train": 6, "test": 3},
    "svhn_cropped": {"train": 5, "test": 3, "extra": 4},
}
RNG = np.random.default_rng(0)

# Each writer makes random original files of a set in a folder and returns what they hold, by split:
# images [N, height, width, channels] and labels [N].
Written = dict[str, tuple[np.ndarray, np.ndarray]]


def write_cifar10(folder: Path) -> Written:
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    return {
        "train": write_cifar(folder, [f"data_batch_{i}.bin" for i in range(1, 6)], 2, [10]),
        "test": write_cifar(folder, ["test_batch.bin"], 4, [10]),
    }


def write_cifar100(folder: Path) -> Written:
    folder = folder / "cifar-100-binary"
    folder.mkdir(parents=True)
    return {
        "train": write_cifar(folder, ["train.bin"], 9, [20, 100]),
        "test": write_cifar(folder, ["test.bin"], 3, [20, 100]),
    }


def write_cifar(folder: Path, names: list[str], num_each: int, classes: list[int]):
    """The label that counts is the last of the label bytes."""
    images, labels = [], []
    for name in names:
        label_bytes = [RNG.integers(0, n, (num_each, 1), np.uint8) for n in classes]
        planes = RNG.integers(0, 256, (num_each, 3, 32, 32), np.uint8)
        np.hstack([*label_bytes, planes.reshape(num_each, -1)]).tofile(folder / name)
        images.append(planes.transpose(0, 2, 3, 1))
        labels.append(label_bytes[-1][:, 0])
    return np.concatenate(images), np.concatenate(labels)


def write_idx(folder: Path) -> Written:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, prefix, num_examples in (("train", "train", 6), ("test", "t10k", 3)):
        images = RNG.integers(0, 256, (num_examples, 28, 28), np.uint8)
        labels = RNG.integers(0, 10, num_examples, np.uint8)
        for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
        written[split] = (images[..., None], labels)
    return written


def write_idx_gz(folder: Path) -> Written:
    written = write_idx(folder)
    for path in list(folder.glob("*-ubyte")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return written


def write_svhn(folder: Path) -> Written:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, num_examples in SIZES["svhn_cropped"].items():
        images = RNG.integers(0, 256, (num_examples, 32, 32, 3), np.uint8)
        digits = RNG.integers(0, 10, num_examples).astype(np.uint8)
        digits[0] = 0
        stored = np.where(digits == 0, 10, digits)[:, None]
        arrays = {"X": images.transpose(1, 2, 3, 0), "y": stored}
        scipy.io.savemat(folder / f"{split}_32x32.mat", arrays, do_compression=True)
        written[split] = (images, digits)
    return written


def pack(folder: Path, name: str) -> None:
    """Replaces the one folder in `folder` by a packed archive of it."""
    (unpacked,) = folder.iterdir()
    with tarfile.open(folder / name, "w:gz") as tar:
        tar.add(unpacked, unpacked.name)
    for path in unpacked.iterdir():
        path.unlink()
    unpacked.rmdir()


def write_cifar10_packed(folder: Path) -> Written:
    written = write_cifar10(folder)
    pack(folder, "cifar-10-binary.tar.gz")
    return written


def write_cifar100_packed(folder: Path) -> Written:
    written = write_cifar100(folder)
    pack(folder, "cifar-100-binary.tar.gz")
    return written


def write_cifar10_loose(folder: Path) -> Written:
    written = write_cifar10(folder)
    for path in (folder / "cifar-10-batches-bin").iterdir():
        path.rename(folder / path.name)
    return written


def write_tree(folder: Path, classes: list[str], sizes: dict[str, int], shape=(32, 32, 3)) -> None:
    """`sizes[split]` pictures of each class."""
    for split, count in sizes.items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 256, shape, np.uint8).squeeze()
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def refused(name: str, source: Path, data_dir: Path) -> str:
    """The message with which a source is refused; checks that nothing looks prepared."""
    with pytest.raises(InputError) as caught:
        small.prepare(name, str(data_dir), str(source))
    assert "\n" not in str(caught.value)
    assert small.find(name, str(data_dir)) is None
    assert not list(data_dir.rglob("*.array_record*"))
    return str(caught.value)
