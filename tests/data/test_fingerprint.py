"""A run's data are known again, and told from others, without being kept."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import datasets, device_dataset, folder_to_tfds
from resnet_jax.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "tree" / split / name / f"{i}.png")
    return tmp_path / "tree"


def of(tree: Path, *splits: str) -> dict:
    return datasets.fingerprint("image_folder", splits or ["train", "test"], str(tree))


def rename(path: Path, name: bytes) -> Path:
    try:
        return path.rename(path.parent / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")


def test_names_that_are_not_utf8_are_told_apart(tree: Path):
    digests = set()
    cat = tree / "train" / "cat" / "0.png"
    for name in (b"M\xfcller.png", b"M\xf6ller.png", "Müller.png".encode()):
        cat = rename(cat, name)
        digests.add(of(tree)["splits"]["train"]["digest"])
    assert len(digests) == 3


def test_digest_of_a_tree_is_that_of_earlier_versions(tree: Path):
    (tree / "train" / "cat" / "0.png").rename(tree / "train" / "cat" / "Müller.png")
    for number, path in enumerate(sorted(tree.rglob("*.png"))):
        path.write_bytes(bytes([number]))
    assert of(tree, "train")["splits"]["train"]["digest"] == "64ad1783e54b806c4e0008201bd1f0be"


def test_same_images_elsewhere_are_the_same_data(tree: Path, tmp_path: Path):
    before = json.loads(json.dumps(of(tree)))
    tree.rename(tmp_path / "moved")
    assert datasets.compare_fingerprints(before, of(tmp_path / "moved")) is None


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda f: shutil.copy(f / "0.png", f / "9.png"), "train/dog has 5 images, had 4"),
        (lambda f: (f / "0.png").unlink(), "train/dog has 3 images, had 4"),
        (lambda f: (f / "0.png").rename(f / "9.png"), "train has other images"),
        (lambda f: shutil.copy(f / "0.png", f / "1.png"), "train has other images"),
        (lambda f: shutil.copytree(f, f.with_name("wolf")), "train/wolf has 4 images, had 0"),
    ],
)
def test_every_change_of_a_folder_is_told_in_one_line(tree: Path, change, difference: str):
    before = of(tree, "train")
    change(tree / "train" / "dog")
    told = datasets.compare_fingerprints(before, of(tree, "train"))
    assert told.startswith(difference)
    assert "\n" not in told


def test_byte_of_a_file_changed_in_place_is_noticed(tree: Path):
    before = of(tree)
    path = tree / "test" / "cat" / "0.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert datasets.compare_fingerprints(before, of(tree)).startswith("test has other images")
    assert datasets.compare_fingerprints(before, of(tree, "train[:50%]")) is None


def test_large_folders_are_told_apart_without_reading_all(tree: Path, monkeypatch):
    monkeypatch.setattr("resnet_jax.data.image_folder._READ_WHOLE", 0)
    before = of(tree)
    path = tree / "test" / "cat" / "0.png"
    path.write_bytes(path.read_bytes() + b"x")
    assert datasets.compare_fingerprints(before, of(tree)).startswith("test has other images")


def test_prepared_sets_of_one_name_are_told_apart_by_their_files(tree: Path, tmp_path: Path):
    def prepared(place: str) -> dict:
        folder_to_tfds.prepare("pets", str(tmp_path / place), str(tree))
        return datasets.fingerprint("pets", ["train"], str(tmp_path / place))

    first, again = prepared("one"), prepared("two")
    assert datasets.compare_fingerprints(first, again) is None
    (tree / "train" / "cat" / "0.png").unlink()
    assert datasets.compare_fingerprints(first, prepared("three")) == (
        "train has 7 examples, had 8"
    )


DIGITS = {"test": "384234f2cdb65765cdef147a07f0f18c", "train": "96440ab36ac4accfee30c663eb5a6032"}


def test_digits_have_a_known_content():
    found = datasets.fingerprint("digits", ["train[:100]", "test"])
    assert {split: part["digest"] for split, part in found["splits"].items()} == DIGITS


def test_statistics_are_kept_to_the_bit(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    kept = device_dataset.normalization(images, "pixel", "channel")
    kept.save(tmp_path / "statistics.npz")
    found = device_dataset.Normalization.load(tmp_path / "statistics.npz")
    np.testing.assert_array_equal(found.mean, kept.mean)
    np.testing.assert_array_equal(found.std, kept.std)


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_damaged_statistics_are_named(tmp_path: Path, kept: int):
    path = tmp_path / "statistics.npz"
    device_dataset.normalization(np.zeros((1, 2, 2, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"statistics\.npz: damaged"):
        device_dataset.Normalization.load(path)
