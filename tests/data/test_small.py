"""Data sets prepared without TensorFlow are TFDS's own, or are not there at all."""

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from originals_on_disk import (
    SIZES,
    Written,
    refused,
    write_cifar10,
    write_cifar10_loose,
    write_cifar10_packed,
    write_cifar100,
    write_cifar100_packed,
    write_idx,
    write_idx_gz,
    write_svhn,
    write_tree,
)
from PIL import Image

from resnet_jax.data import datasets, raw_readers, small
from resnet_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("few_examples")

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
UNPACK = SHARED / "tools" / "unpack_cifar10.py"


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
    info = small.prepare(name, str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert info.name == name
    assert {split: info.splits[split].num_examples for split in info.splits} == SIZES[name]
    for split, (images, labels) in written.items():
        examples = list(tfds.data_source(name, split=split, data_dir=str(tmp_path / "tfds")))
        stored = [example["image"] for example in examples], [e["label"] for e in examples]
        assert as_set(*stored) == as_set(images, labels)


def test_set_has_tfdss_version_features_and_ids(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    info = small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    stock = tfds.builder("cifar10", data_dir=str(tmp_path / "elsewhere"))
    assert Path(info.data_dir) == tmp_path / "tfds" / "cifar10" / str(stock.version)
    assert info.features.keys() == stock.info.features.keys()
    assert info.features["label"].names == list(raw_readers.CIFAR10_CLASSES)
    train = tfds.data_source("cifar10", split="train", data_dir=str(tmp_path / "tfds"))
    assert {e["id"].decode() for e in train} == {f"train_{i:05d}" for i in range(10)}


def test_cifar100_superclasses_are_kept(tmp_path: Path):
    write_cifar100(tmp_path / "source")
    small.prepare("cifar100", str(tmp_path / "tfds"), str(tmp_path / "source"))
    content = (tmp_path / "source" / "cifar-100-binary" / "train.bin").read_bytes()
    rows = np.frombuffer(content, np.uint8).reshape(9, -1)
    train = tfds.data_source("cifar100", split="train", data_dir=str(tmp_path / "tfds"))
    stored = sorted((int(e["coarse_label"]), int(e["label"])) for e in train)
    assert stored == sorted((int(coarse), int(fine)) for coarse, fine in rows[:, :2])


def test_prepared_order_repeats(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    orders = []
    for place in ("one", "two"):
        small.prepare("cifar10", str(tmp_path / place), str(tmp_path / "source"))
        orders.append(datasets.load("cifar10", "train", data_dir=str(tmp_path / place)))
    np.testing.assert_array_equal(orders[0].images, orders[1].images)


def test_second_preparation_changes_nothing(tmp_path: Path):
    write_cifar10(tmp_path / "source")
    first = small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    before = {path: path.stat().st_mtime_ns for path in Path(first.data_dir).iterdir()}
    second = small.prepare("cifar10", str(tmp_path / "tfds"))
    assert second.data_dir == first.data_dir
    assert before == {path: path.stat().st_mtime_ns for path in Path(first.data_dir).iterdir()}


# --- trees of pictures


@pytest.fixture
def cifar_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "cifar10", {"train": 20, "test": 10})
    write_tree(tmp_path / "tree", list(raw_readers.CIFAR10_CLASSES), {"train": 2, "test": 1})
    return tmp_path / "tree"


def test_tree_of_pictures_is_a_source(cifar_tree: Path, tmp_path: Path):
    small.prepare("cifar10", str(tmp_path / "tfds"), str(cifar_tree))
    train = datasets.load("cifar10", "train", data_dir=str(tmp_path / "tfds"))
    images, labels = [], []
    for label, name in enumerate(raw_readers.CIFAR10_CLASSES):
        for path in (cifar_tree / "train" / name).iterdir():
            images.append(np.asarray(Image.open(path)))
            labels.append(label)
    assert as_set(train.images, train.labels) == as_set(np.stack(images), np.array(labels))


def test_tree_is_said_to_have_an_order_of_its_own(cifar_tree: Path, tmp_path: Path, capsys):
    line = (
        "cifar10: from a tree, so in another order than TFDS's: parts such as train[:45000] have "
    )
    small.prepare("cifar10", str(tmp_path / "tfds"), str(cifar_tree))
    assert capsys.readouterr().out.splitlines()[0] == line + "other images"
    small.prepare("cifar10", str(tmp_path / "tfds"), str(cifar_tree))  # is there
    assert capsys.readouterr().out == ""


def test_original_files_have_the_order_of_tfds(tmp_path: Path, capsys):
    write_cifar10(tmp_path / "source")
    small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert "order" not in capsys.readouterr().out


def test_tree_of_grey_pictures_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "fashion_mnist", {"train": 10, "test": 10})
    names = tfds.builder("fashion_mnist").info.features["label"].names
    folders = [name.replace("/", "_") for name in names]
    write_tree(tmp_path / "tree", folders, {"train": 1, "test": 1}, (28, 28, 1))
    small.prepare("fashion_mnist", str(tmp_path / "tfds"), str(tmp_path / "tree"))
    train = datasets.load("fashion_mnist", "train", data_dir=str(tmp_path / "tfds"))
    assert train.class_names == tuple(names)
    boot = np.asarray(Image.open(tmp_path / "tree" / "train" / "Ankle boot" / "0.png"))
    np.testing.assert_array_equal(train.images[train.labels == 9][0, ..., 0], boot)


def test_tree_of_cifar100_gets_its_superclasses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "cifar100", {"train": 100, "test": 100})
    write_tree(tmp_path / "tree", list(raw_readers.CIFAR100_CLASSES), {"train": 1, "test": 1})
    small.prepare("cifar100", str(tmp_path / "tfds"), str(tmp_path / "tree"))
    for e in tfds.data_source("cifar100", split="test", data_dir=str(tmp_path / "tfds")):
        assert e["coarse_label"] == raw_readers.coarse_labels(e["label"])


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
    assert "train: 19 images, cifar10 has 20" in refused("cifar10", cifar_tree, tmp_path)


# --- several processes


def test_of_two_who_need_a_set_at_once_one_prepares_it(tmp_path: Path):
    write_idx(tmp_path / "source")
    # One after another, because TFDS registers what it makes for the whole process.
    make = lambda: small._builder("mnist", str(tmp_path / "tfds"), tmp_path / "source")
    builders, together = [make(), make()], threading.Barrier(2)

    def write(builder) -> bool:
        together.wait(timeout=60)
        return small.write(builder, "from here")

    with futures.ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(write, builders)) == [False, True]
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mnist"]


def test_set_that_another_process_finished_first_is_used_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def cannot_lock(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    write_idx(tmp_path / "source")
    prepare = lambda: small.prepare("mnist", str(tmp_path / "tfds"), str(tmp_path / "source"))
    encode, calls = small._encode_png, []

    def another_is_faster(image: np.ndarray) -> bytes:
        calls.append(image)
        if len(calls) == 1:
            prepare()
        return encode(image)

    monkeypatch.setattr(fcntl, "flock", cannot_lock)
    monkeypatch.setattr(small, "_encode_png", another_is_faster)
    assert prepare().splits["test"].num_examples == 3
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mnist"]


# --- when things go wrong


def test_failure_midway_leaves_nothing_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar10(tmp_path / "source")
    encode, calls = small._encode_png, []

    def fail_late(image: np.ndarray) -> bytes:
        calls.append(image)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return encode(image)

    monkeypatch.setattr(small, "_encode_png", fail_late)
    with pytest.raises(KeyboardInterrupt):
        small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert small.find("cifar10", str(tmp_path / "tfds")) is None
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
    monkeypatch.undo()
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "cifar10", SIZES["cifar10"])
    small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "source"))
    assert len(datasets.load("cifar10", "test", data_dir=str(tmp_path / "tfds")).labels) == 4


def test_foreign_folder_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(InputError, match=r"3\.0\.2: not a prepared data set"):
        small.prepare("cifar10", str(tmp_path))


def test_failed_download_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(url: str, timeout: float) -> None:
        raise small.requests.ConnectionError

    monkeypatch.setattr(small.requests, "head", unreachable)
    with pytest.raises(InputError) as caught:
        datasets.load("mnist", "train", data_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for url in tfds.builder_cls("mnist").url_infos:
        assert url in message
    assert "python -m experiments.prepare_data --dataset=mnist --source=DIR" in message
    assert small.find("mnist", str(tmp_path)) is None


def test_downloaded_files_are_checked_by_tfdss_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # TFDS takes files from this folder instead of downloading them.
    write_idx_gz(tmp_path / "downloads" / "manual")
    monkeypatch.setattr(small.requests, "head", lambda url, timeout: None)
    with pytest.raises(InputError, match="NonMatchingChecksumError"):
        small.prepare("mnist", str(tmp_path))
    assert small.find("mnist", str(tmp_path)) is None


def test_another_sets_files_of_the_same_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_idx_gz(tmp_path / "source")
    file = tmp_path / "source" / "train-images-idx3-ubyte.gz"
    published = tfds.builder_cls("kmnist").url_infos
    (info,) = (info for url, info in published.items() if url.endswith(file.name))
    assert small._published()[info.checksum] == "kmnist"
    known = {small._sha256(file): "kmnist"}
    monkeypatch.setattr(small, "_published", lambda: known)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: kmnist's file, .* mnist's$"):
        small.prepare("mnist", str(tmp_path), tmp_path / "source")
    known[small._sha256(file)] = "mnist"
    small.prepare("mnist", str(tmp_path), tmp_path / "source")


def test_wrong_name_gets_the_nearest(tmp_path: Path):
    with pytest.raises(InputError, match="nearest: fashion_mnist"):
        small.prepare("fashionmnist", str(tmp_path))


def test_preparing_and_loading_never_import_tensorflow(tmp_path: Path):
    write_idx(tmp_path / "source")
    program = (
        "import sys\n"
        "from resnet_jax.data import datasets, raw_readers, small\n"
        f"raw_readers.NUM_EXAMPLES['mnist'] = {SIZES['mnist']}\n"
        f"small.prepare('mnist', {str(tmp_path)!r}, {str(tmp_path / 'source')!r})\n"
        f"datasets.load('mnist', 'all', data_dir={str(tmp_path)!r})\n"
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
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "cifar10", {"train": 100, "test": 100})
    small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    test = datasets.load("cifar10", "test", data_dir=str(tmp_path / "tfds"))
    content = (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").read_bytes()
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert as_set(test.images, test.labels) == as_set(images, rows[:, 0])


@pytest.mark.weekly
def test_whole_cifar10_is_prepared_and_loads(tmp_path: Path):
    unpack_cifar10("--bin", str(tmp_path))
    small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    for split, count in (("train", 5000), ("test", 1000)):
        examples = datasets.load("cifar10", split, data_dir=str(tmp_path / "tfds"))
        assert np.bincount(examples.labels).tolist() == [count] * 10
