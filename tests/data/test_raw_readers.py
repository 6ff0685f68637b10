"""Original files are read as published; a broken one is named, and nothing is prepared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from originals_on_disk import (
    Written,
    refused,
    write_cifar10,
    write_cifar10_packed,
    write_idx,
    write_idx_gz,
    write_svhn,
)

from resnet_jax.data import raw_readers

pytestmark = pytest.mark.usefixtures("few_examples")


def test_cifar100_has_20_superclasses_of_5_classes():
    coarse = raw_readers.coarse_labels(np.arange(100))
    assert np.bincount(coarse).tolist() == [5] * 20
    superclasses = list(raw_readers.CIFAR100_SUPERCLASSES)
    classes = list(raw_readers.CIFAR100_CLASSES)
    assert superclasses[coarse[classes.index("maple_tree")]] == "trees"
    assert superclasses == sorted(superclasses)


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
