"""Data sets prepared without TensorFlow are TFDS's own, or are not there at all."""

import gzip
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from resnet_jax.data import builders, originals, sources
from resnet_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
UNPACK = SHARED / "tools" / "unpack_cifar10.py"
SIZES = {
    "cifar10": {"train": 10, "test": 4},
    "cifar100": {"train": 9, "test": 3},
    "mnist": {"train": 6, "test": 3},
    "fashion_mnist": {"train": 6, "test": 3},
    "kmnist": {"train": 6, "test": 3},
    "svhn_cropped": {"train": 5, "test": 3, "extra": 4},
}
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_examples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a handful of examples, everything else as published."""
    if "slow" not in request.keywords:
        for name, sizes in SIZES.items():
            monkeypatch.setitem(originals.NUM_EXAMPLES, name, sizes)


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


def as_set(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("cifar10", write_cifar10),
        ("cifar10", write_cifar10_packed),
        ("cifar10", write_cifar10_loose),
        ("cifar100", write_cifar100),
        ("cifar100", write_cifar100_packed),
        ("mnist", write_idx),
        ("fashion_mnist", write_idx_gz),
        ("kmnist", write_idx_gz),
        ("svhn_cropped", write_svhn),
    ],
)
def test_stock_data_source_reads_every_original(
    name: str, write: Callable[[Path], Written], tmp_path: Path
):
    written = write(tmp_path / "source")
    info = builders.prepare(name, str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert info.name == name
    assert {split: info.splits[split].num_examples for split in info.splits} == SIZES[name]
    for split, (images, labels) in written.items():
        examples = list(tfds.data_source(name, split=split, data_dir=str(tmp_path / "tfds")))
        stored = [example["image"] for example in examples], [e["label"] for e in examples]
        assert as_set(*stored) == as_set(images, labels)


def test_set_has_tfdss_version_features_and_ids(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    info = builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    stock = tfds.builder("cifar10", data_dir=str(tmp_path / "elsewhere"))
    assert Path(info.data_dir) == tmp_path / "tfds" / "cifar10" / str(stock.version)
    assert info.features.keys() == stock.info.features.keys()
    assert info.features["label"].names == list(originals.CIFAR10_CLASSES)
    train = tfds.data_source("cifar10", split="train", data_dir=str(tmp_path / "tfds"))
    assert {e["id"].decode() for e in train} == {f"train_{i:05d}" for i in range(10)}


def test_cifar100_superclasses_are_kept(tmp_path: Path):
    write_cifar100(tmp_path / "source")
    builders.prepare("cifar100", str(tmp_path / "tfds"), str(tmp_path / "source"))
    content = (tmp_path / "source" / "cifar-100-binary" / "train.bin").read_bytes()
    rows = np.frombuffer(content, np.uint8).reshape(9, -1)
    train = tfds.data_source("cifar100", split="train", data_dir=str(tmp_path / "tfds"))
    stored = sorted((int(e["coarse_label"]), int(e["label"])) for e in train)
    assert stored == sorted((int(coarse), int(fine)) for coarse, fine in rows[:, :2])


def test_cifar100_has_20_superclasses_of_5_classes():
    coarse = originals.coarse_labels(np.arange(100))
    assert np.bincount(coarse).tolist() == [5] * 20
    superclasses = list(originals.CIFAR100_SUPERCLASSES)
    classes = list(originals.CIFAR100_CLASSES)
    assert superclasses[coarse[classes.index("maple_tree")]] == "trees"
    assert superclasses == sorted(superclasses)


def test_prepared_order_repeats(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    orders = []
    for place in ("one", "two"):
        builders.prepare("cifar10", str(tmp_path / place), str(tmp_path / "source"))
        orders.append(sources.load("cifar10", "train", data_dir=str(tmp_path / place)))
    np.testing.assert_array_equal(orders[0].images, orders[1].images)


def test_second_preparation_changes_nothing(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    first = builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    before = {path: path.stat().st_mtime_ns for path in Path(first.data_dir).iterdir()}
    second = builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "gone"))
    assert second.data_dir == first.data_dir
    assert before == {path: path.stat().st_mtime_ns for path in Path(first.data_dir).iterdir()}


# --- trees of pictures


def write_tree(folder: Path, classes: list[str], sizes: dict[str, int], shape=(32, 32, 3)) -> None:
    """`sizes[split]` pictures of each class."""
    for split, count in sizes.items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 256, shape, np.uint8).squeeze()
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


@pytest.fixture
def cifar_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(originals.NUM_EXAMPLES, "cifar10", {"train": 20, "test": 10})
    write_tree(tmp_path / "tree", list(originals.CIFAR10_CLASSES), {"train": 2, "test": 1})
    return tmp_path / "tree"


def test_tree_of_pictures_is_a_source(cifar_tree: Path, tmp_path: Path):
    builders.prepare("cifar10", str(tmp_path / "tfds"), str(cifar_tree))
    train = sources.load("cifar10", "train", data_dir=str(tmp_path / "tfds"))
    images, labels = [], []
    for label, name in enumerate(originals.CIFAR10_CLASSES):
        for path in (cifar_tree / "train" / name).iterdir():
            images.append(np.asarray(Image.open(path)))
            labels.append(label)
    assert as_set(train.images, train.labels) == as_set(np.stack(images), np.array(labels))


def test_tree_of_grey_pictures_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(originals.NUM_EXAMPLES, "fashion_mnist", {"train": 10, "test": 10})
    names = tfds.builder("fashion_mnist").info.features["label"].names
    folders = [name.replace("/", "_") for name in names]
    write_tree(tmp_path / "tree", folders, {"train": 1, "test": 1}, (28, 28, 1))
    builders.prepare("fashion_mnist", str(tmp_path / "tfds"), str(tmp_path / "tree"))
    train = sources.load("fashion_mnist", "train", data_dir=str(tmp_path / "tfds"))
    assert train.class_names == tuple(names)
    boot = np.asarray(Image.open(tmp_path / "tree" / "train" / "Ankle boot" / "0.png"))
    np.testing.assert_array_equal(train.images[train.labels == 9][0, ..., 0], boot)


def test_tree_of_cifar100_gets_its_superclasses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(originals.NUM_EXAMPLES, "cifar100", {"train": 100, "test": 100})
    write_tree(tmp_path / "tree", list(originals.CIFAR100_CLASSES), {"train": 1, "test": 1})
    builders.prepare("cifar100", str(tmp_path / "tfds"), str(tmp_path / "tree"))
    for e in tfds.data_source("cifar100", split="test", data_dir=str(tmp_path / "tfds")):
        assert e["coarse_label"] == originals.coarse_labels(e["label"])


def refused(name: str, source: Path, data_dir: Path) -> str:
    """The message with which a source is refused; checks that nothing looks prepared."""
    with pytest.raises(InputError) as caught:
        builders.prepare(name, str(data_dir), str(source))
    assert "\n" not in str(caught.value)
    assert builders.find(name, str(data_dir)) is None
    assert not list(data_dir.rglob("*.array_record*"))
    return str(caught.value)


def test_picture_of_another_size_is_named(cifar_tree: Path, tmp_path: Path):
    path = cifar_tree / "train" / "cat" / "1.png"
    Image.new("RGB", (31, 32)).save(path)
    assert f"{path}: 31×32 pixels; wanted 32×32" in refused("cifar10", cifar_tree, tmp_path)


def test_unknown_class_is_named(cifar_tree: Path, tmp_path: Path):
    (cifar_tree / "test" / "zebra").mkdir()
    assert "zebra: not a class" in refused("cifar10", cifar_tree, tmp_path)


def test_missing_class_is_named(cifar_tree: Path, tmp_path: Path):
    (cifar_tree / "train" / "cat").rename(tmp_path / "cat")
    assert "class folder cat is missing" in refused("cifar10", cifar_tree, tmp_path)


def test_missing_picture_is_counted(cifar_tree: Path, tmp_path: Path):
    (cifar_tree / "train" / "cat" / "1.png").unlink()
    assert "train: 19 pictures, cifar10 has 20" in refused("cifar10", cifar_tree, tmp_path)


# --- broken originals


def test_truncated_bin_is_named(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    path = tmp_path / "source" / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    message = refused("cifar10", tmp_path / "source", tmp_path / "tfds")
    assert f"{path}: 6145 bytes are not whole 3073-byte records" in message


def test_missing_record_is_counted(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    path = tmp_path / "source" / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    message = refused("cifar10", tmp_path / "source", tmp_path / "tfds")
    assert f"{path}: 3 examples, the published file has 4" in message


def test_missing_bin_is_named(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    (tmp_path / "source" / "cifar-10-batches-bin" / "data_batch_5.bin").unlink()
    message = refused("cifar10", tmp_path / "source", tmp_path / "tfds")
    assert "data_batch_5.bin is missing" in message


def test_label_out_of_range_is_named(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    path = tmp_path / "source" / "cifar-10-batches-bin" / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[3073] = 10
    path.write_bytes(content)
    message = refused("cifar10", tmp_path / "source", tmp_path / "tfds")
    assert f"{path}: label 10 of record 1 is outside 0..9" in message


def test_truncated_archive_is_named(tmp_path: Path):
    write_cifar10_packed(tmp_path / "source")
    path = tmp_path / "source" / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    message = refused("cifar10", tmp_path / "source", tmp_path / "tfds")
    assert f"{path}: truncated or not a tar archive" in message


@pytest.mark.parametrize("write", [write_idx, write_idx_gz])
def test_truncated_idx_is_named(write: Callable[[Path], Written], tmp_path: Path):
    write(tmp_path / "source")
    (path,) = (tmp_path / "source").glob("t10k-images*")
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refused("mnist", tmp_path / "source", tmp_path / "tfds")


def test_swapped_idx_files_are_noticed(tmp_path: Path):
    write_idx(tmp_path / "source")
    (path,) = (tmp_path / "source").glob("train-images*")
    path.write_bytes((tmp_path / "source" / "train-labels-idx1-ubyte").read_bytes())
    message = refused("mnist", tmp_path / "source", tmp_path / "tfds")
    assert "not an IDX file of uint8 with 3 dimension(s)" in message


def test_missing_idx_file_is_named(tmp_path: Path):
    write_idx(tmp_path / "source")
    (tmp_path / "source" / "t10k-labels-idx1-ubyte").unlink()
    message = refused("mnist", tmp_path / "source", tmp_path / "tfds")
    assert "missing t10k-labels-idx1-ubyte.gz, packed or unpacked" in message


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_truncated_mat_is_named(kept: int, tmp_path: Path):
    write_svhn(tmp_path / "source")
    path = tmp_path / "source" / "extra_32x32.mat"
    path.write_bytes(path.read_bytes()[:kept])
    assert str(path) in refused("svhn_cropped", tmp_path / "source", tmp_path / "tfds")


def test_mat_label_out_of_range_is_named(tmp_path: Path):
    write_svhn(tmp_path / "source")
    path = tmp_path / "source" / "test_32x32.mat"
    arrays = scipy.io.loadmat(path)
    arrays["y"][1] = 0
    scipy.io.savemat(path, {key: arrays[key] for key in ("X", "y")})
    message = refused("svhn_cropped", tmp_path / "source", tmp_path / "tfds")
    assert f"{path}: label 0 of record 1 is outside 1..10" in message


def test_source_that_is_no_folder_is_refused(tmp_path: Path):
    assert "not a folder" in refused("cifar10", tmp_path / "gone", tmp_path / "tfds")


# --- when things go wrong


def test_failure_midway_leaves_nothing_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar10(tmp_path / "source")
    encode, calls = builders._encode_png, []

    def fail_late(image: np.ndarray) -> bytes:
        calls.append(image)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return encode(image)

    monkeypatch.setattr(builders, "_encode_png", fail_late)
    with pytest.raises(KeyboardInterrupt):
        builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert builders.find("cifar10", str(tmp_path / "tfds")) is None
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
    monkeypatch.undo()
    monkeypatch.setitem(originals.NUM_EXAMPLES, "cifar10", SIZES["cifar10"])
    builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert len(sources.load("cifar10", "test", data_dir=str(tmp_path / "tfds")).labels) == 4


def test_foreign_folder_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(InputError, match=r"3\.0\.2: not a prepared data set"):
        builders.prepare("cifar10", str(tmp_path))


def test_failed_download_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(url: str, timeout: float) -> None:
        raise builders.requests.ConnectionError

    monkeypatch.setattr(builders.requests, "head", unreachable)
    with pytest.raises(InputError) as caught:
        sources.load("mnist", "train", data_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for url in tfds.builder_cls("mnist").url_infos:
        assert url in message
    assert "python -m experiments.prepare_data --dataset=mnist --source=DIR" in message
    assert builders.find("mnist", str(tmp_path)) is None


def test_downloaded_files_are_checked_by_tfdss_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # TFDS takes files from this folder instead of downloading them.
    write_idx_gz(tmp_path / "downloads" / "manual")
    monkeypatch.setattr(builders.requests, "head", lambda url, timeout: None)
    with pytest.raises(InputError, match="NonMatchingChecksumError"):
        builders.prepare("mnist", str(tmp_path))
    assert builders.find("mnist", str(tmp_path)) is None


def test_wrong_name_gets_the_nearest(tmp_path: Path):
    with pytest.raises(InputError, match="nearest: fashion_mnist"):
        builders.prepare("fashionmnist", str(tmp_path))


def test_preparing_and_loading_never_import_tensorflow(tmp_path: Path):
    write_idx(tmp_path / "source")
    program = (
        "import sys\n"
        "from resnet_jax.data import builders, originals, sources\n"
        f"originals.NUM_EXAMPLES['mnist'] = {SIZES['mnist']}\n"
        f"builders.prepare('mnist', {str(tmp_path)!r}, {str(tmp_path / 'source')!r})\n"
        f"sources.load('mnist', 'all', data_dir={str(tmp_path)!r})\n"
        "assert not {'tensorflow', 'jax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


# --- real images


def unpack_cifar10(*args: str) -> None:
    if not UNPACK.exists() or not (SHARED / "data" / "cifar10").exists():
        pytest.skip(f"needs CIFAR-10 in {SHARED}")
    subprocess.run([sys.executable, UNPACK, *args], check=True, capture_output=True)


def test_real_cifar10_pixels_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    unpack_cifar10("--bin", str(tmp_path), "--limit=10")
    monkeypatch.setitem(originals.NUM_EXAMPLES, "cifar10", {"train": 100, "test": 100})
    builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    test = sources.load("cifar10", "test", data_dir=str(tmp_path / "tfds"))
    content = (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").read_bytes()
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert as_set(test.images, test.labels) == as_set(images, rows[:, 0])


@pytest.mark.slow
def test_whole_cifar10_is_prepared_and_loads(tmp_path: Path):
    unpack_cifar10("--bin", str(tmp_path))
    builders.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    for split, count in (("train", 5000), ("test", 1000)):
        examples = sources.load("cifar10", split, data_dir=str(tmp_path / "tfds"))
        assert np.bincount(examples.labels).tolist() == [count] * 10
