"""The small benchmarks' original files, read as their authors published them.

- CIFAR-10 and CIFAR-100 (Krizhevsky 2009): an archive of `.bin` files; a record is the label
  byte(s), then 3×32×32 bytes, the planes R, G and B.
- MNIST (LeCun et al. 1998), Fashion-MNIST (Xiao et al. 2017) and KMNIST (Clanuwat et al. 2018):
  IDX files, a big-endian header and then bytes.
- SVHN, cropped digits (Netzer et al. 2011): MATLAB files with `X` [32, 32, 3, N] and `y` 1..10.
"""

import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from resnet_jax.errors import InputError

NUM_EXAMPLES: dict[str, dict[str, int]] = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "mnist": {"train": 60_000, "test": 10_000},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "kmnist": {"train": 60_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
# Both of CIFAR-100's label lists are in alphabetical order.
CIFAR100_CLASSES = tuple(sorted(" ".join(CIFAR100_SUPERCLASSES.values()).split()))

CLASSES = {"cifar10": CIFAR10_CLASSES, "cifar100": CIFAR100_CLASSES}
"""Names that TFDS only knows of sets that are prepared."""

_CIFAR_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    "cifar100": {"train": ("train.bin",), "test": ("test.bin",)},
}
_CIFAR_FOLDERS = {
    "cifar-10-binary.tar.gz": "cifar-10-batches-bin",
    "cifar-100-binary.tar.gz": "cifar-100-binary",
}
_CIFAR_LABELS = {
    "cifar10": {"label": len(CIFAR10_CLASSES)},
    "cifar100": {
        "coarse_label": len(CIFAR100_SUPERCLASSES),
        "label": len(CIFAR100_CLASSES),
    },
}
_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Original:
    """One split: images `uint8` [N, height, width, channels] and each kind of label, int [N]."""

    images: np.ndarray
    labels: dict[str, np.ndarray]


def coarse_labels(labels: np.ndarray) -> np.ndarray:
    """CIFAR-100's superclass of each fine label: int [N] -> int [N]."""
    superclass_of = {
        fine: coarse
        for coarse, names in enumerate(CIFAR100_SUPERCLASSES.values())
        for fine in names.split()
    }
    return np.array([superclass_of[name] for name in CIFAR100_CLASSES])[labels]


def locate(source: Path, file_names: Iterable[str]) -> dict[str, Path]:
    """Where each original file lies in `source`, packed or unpacked; files not there are left out.

    An unpacked archive is represented by the folder that holds its `.bin` files.
    """
    found = {}
    for name in file_names:
        if name in _CIFAR_FOLDERS:
            folders = (source / _CIFAR_FOLDERS[name], source)
            places = [source / name, *(folder for folder in folders if any(folder.glob("*.bin")))]
        else:
            places = [source / name, source / name.removesuffix(".gz")]
        existing = [place for place in places if place.exists()]
        if existing:
            found[name] = existing[0]
    return found


def read(name: str, files: dict[str, Path]) -> dict[str, Original]:
    """All splits of the set `name` from its original `files` (by their original names).

    Raises `InputError`, naming the file, for one that is missing from an archive, truncated, not
    in its format, with another number of examples than published or with a label out of range.
    """
    if name in _CIFAR_PARTS:
        (archive,) = files.values()
        return _read_cifar(name, archive)
    if name == "svhn_cropped":
        return {
            split: _read_svhn(files[f"{split}_32x32.mat"], num_examples)
            for split, num_examples in NUM_EXAMPLES[name].items()
        }
    return {
        split: _read_idx_pair(
            files[f"{prefix}-images-idx3-ubyte.gz"],
            files[f"{prefix}-labels-idx1-ubyte.gz"],
            NUM_EXAMPLES[name][split],
        )
        for split, prefix in _IDX_PREFIXES.items()
    }


def _read_cifar(name: str, archive: Path) -> dict[str, Original]:
    contents = _unpacked(archive)
    splits = {}
    for split, parts in _CIFAR_PARTS[name].items():
        records = []
        for part in parts:
            if part not in contents:
                raise InputError(f"{archive}: {part} is missing")
            num_examples = NUM_EXAMPLES[name][split] // len(parts)
            records.append(
                _cifar_records(archive / part, contents[part], _CIFAR_LABELS[name], num_examples)
            )
        rows = np.concatenate(records)
        planes = rows[:, len(_CIFAR_LABELS[name]) :].reshape(-1, 3, 32, 32)
        labels = {kind: rows[:, i].astype(np.int64) for i, kind in enumerate(_CIFAR_LABELS[name])}
        splits[split] = Original(planes.transpose(0, 2, 3, 1), labels)
    return splits


def _unpacked(archive: Path) -> dict[str, bytes]:
    """The `.bin` files in a packed archive or in the folder that it was unpacked into."""
    if archive.is_dir():
        return {path.name: path.read_bytes() for path in archive.glob("*.bin")}
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.isfile() and member.name.endswith(".bin")]
            files = {Path(member.name).name: tar.extractfile(member) for member in members}
            return {name: file.read() for name, file in files.items() if file}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{archive}: truncated or not a tar archive ({error})") from error


def _cifar_records(
    path: Path, content: bytes, label_kinds: dict[str, int], num_examples: int
) -> np.ndarray:
    """Checked records, uint8 [num_examples, labels + 3072]."""
    size = len(label_kinds) + 3 * 32 * 32
    if len(content) % size:
        raise InputError(f"{path}: {len(content)} bytes are not whole {size}-byte records")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    _check_count(path, len(records), num_examples)
    for column, num_classes in enumerate(label_kinds.values()):
        _check_labels(path, records[:, column], 0, num_classes - 1)
    return records


def _read_idx_pair(images_path: Path, labels_path: Path, num_examples: int) -> Original:
    images = _read_idx(images_path, num_dims=3)
    labels = _read_idx(labels_path, num_dims=1)
    _check_count(images_path, len(images), num_examples)
    _check_count(labels_path, len(labels), num_examples)
    _check_labels(labels_path, labels, 0, _IDX_NUM_CLASSES - 1)
    return Original(images[..., None], {"label": labels.astype(np.int64)})


def _read_idx(path: Path, num_dims: int) -> np.ndarray:
    """An IDX file, gzipped or not: two zero bytes, type, rank, big-endian sizes, then uint8s."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: truncated or not a gzip file ({error})") from error
    start = 4 + 4 * num_dims
    unsigned_byte = 0x08
    if len(content) < start or content[:4] != bytes([0, 0, unsigned_byte, num_dims]):
        raise InputError(f"{path}: not an IDX file of uint8 with {num_dims} dimension(s)")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dims, offset=4))
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise InputError(f"{path}: {len(content)} bytes, its header {shape} says {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_svhn(path: Path, num_examples: int) -> Original:
    # Only this set needs scipy, whose import takes long.
    from scipy import io

    # What scipy raises on files truncated at any length.
    broken = (EOFError, IndexError, OSError, TypeError, ValueError, NotImplementedError, zlib.error)
    try:
        arrays = io.loadmat(path, variable_names=("X", "y"))
    except (*broken, io.matlab.MatReadError) as error:
        raise InputError(f"{path}: truncated or not a MATLAB file ({error})") from error
    if not arrays.keys() >= {"X", "y"} or arrays["X"].shape[:-1] != (32, 32, 3):
        raise InputError(f"{path}: wanted X [32, 32, 3, N] and y [N, 1]")
    labels = arrays["y"].reshape(-1).astype(np.int64)
    _check_count(path, arrays["X"].shape[-1], num_examples)
    _check_count(path, len(labels), num_examples)
    _check_labels(path, labels, 1, 10)
    # The digit 0 is stored as class 10.
    return Original(np.moveaxis(arrays["X"], -1, 0), {"label": labels % 10})


def _check_count(path: Path, found: int, published: int) -> None:
    if found != published:
        raise InputError(f"{path}: {found} examples, the published file has {published}")


def _check_labels(path: Path, labels: np.ndarray, lowest: int, highest: int) -> None:
    wrong = np.flatnonzero((labels < lowest) | (labels > highest))
    if wrong.size:
        record = wrong[0]
        raise InputError(
            f"{path}: label {labels[record]} of record {record} is outside {lowest}..{highest}"
        )
