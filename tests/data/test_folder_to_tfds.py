"""Records of a TFDS set, and of a tree of pictures that became one: the files as they were."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photographs import sample
from PIL import Image

from resnet_jax.data import datasets, folder_to_tfds, image_folder
from resnet_jax.errors import InputError


def write_tree(root: Path, splits: dict[str, int]) -> Path:
    """Pictures of various sizes and formats in two classes a split."""
    rng = np.random.default_rng(0)
    for folder, count in splits.items():
        for name in ("cat", "dog"):
            (root / folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + i, 30, 3), np.uint8)
                format = ("PNG", "JPEG", "WEBP")[i % 3]
                Image.fromarray(pixels).save(root / folder / name / f"{name}{i}.jpg", format)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", {"train": 5, "val": 2})


def test_converted_tree_keeps_every_byte_name_and_class(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    for split, folder in (("train", "train"), ("validation", "val")):
        opened = datasets.open_records("pets", split, str(tmp_path))
        assert opened.class_names == ("cat", "dog")
        found = {}
        for i in range(len(opened)):
            encoded, label, name = opened[i]
            found[f"{opened.class_names[label]}/{name}"] = encoded
        files = {f"{p.parent.name}/{p.name}": p for p in (tree / folder).rglob("*.jpg")}
        assert found == {name: path.read_bytes() for name, path in files.items()}


def test_converted_photographs_are_a_genuine_tfds_set(tmp_path: Path):
    for photograph in sample(4):
        folder = tmp_path / "tree" / "train" / photograph.name.split("_")[0]
        folder.mkdir(parents=True)
        (folder / photograph.name).write_bytes(photograph.read_bytes())
    folder_to_tfds.prepare("photographs", str(tmp_path), str(tmp_path / "tree"))
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"data = tfds.data_source('photographs', split='train', data_dir={str(tmp_path)!r})\n"
        "print(sorted((e['file_name'].decode(), e['image'].shape) for e in data))\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = [(p.name, np.asarray(Image.open(p).convert("RGB")).shape) for p in sample(4)]
    assert done.stdout.strip() == str(sorted(wanted)), done.stderr


def test_splits_are_those_of_tfds(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    whole = datasets.open_records("pets", "train", str(tmp_path))
    part = datasets.open_records("pets", "train[3:6]", str(tmp_path))
    assert [part[i] for i in range(3)] == [whole[i] for i in range(3, 6)]
    assert len(datasets.open_records("pets", "train+validation", str(tmp_path))) == 14
    with pytest.raises(InputError, match=r"Unknown split.*train \(10\), validation \(4\)"):
        datasets.open_records("pets", "test", str(tmp_path))


def test_slices_hold_all_classes(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    part = datasets.open_records("pets", "train[:50%]", str(tmp_path))
    assert {part[i].label for i in range(len(part))} == {0, 1}


def test_worker_process_can_have_the_records(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    opened = datasets.open_records("pets", "train", str(tmp_path))
    first = opened[0]
    sent = pickle.dumps(opened)
    assert len(sent) < 10_000
    assert pickle.loads(sent)[0] == first


def test_record_of_a_set_without_file_names_is_named_by_its_place(tmp_path: Path):
    from test_tfds_sets import prepare_tfds_set

    prepare_tfds_set(tmp_path)
    opened = datasets.open_records("toy", "train", str(tmp_path))
    assert opened[4].name == "train[4]"
    assert Image.open(io.BytesIO(opened[4].encoded)).size == (5, 4)


def test_classes_without_an_image_are_named(tree: Path, tmp_path: Path, capsys):
    shutil.rmtree(tree / "val" / "cat")
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    assert "\nno validation images of: cat\n" in capsys.readouterr().out


def refused(tree: Path, tmp_path: Path, name: str = "pets") -> str:
    with pytest.raises(InputError) as caught:
        folder_to_tfds.prepare(name, str(tmp_path / "tfds"), str(tree))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "tfds" / "pets").glob("*"))
    return str(caught.value)


def test_broken_picture_is_found_before_training(tree: Path, tmp_path: Path):
    broken = tree / "train" / "dog" / "dog1.jpg"
    broken.write_bytes(broken.read_bytes()[:-50])
    assert f"{broken}: unreadable image" in refused(tree, tmp_path)


def test_file_name_that_is_not_utf8_is_refused(tree: Path, tmp_path: Path):
    cat = tree / "val" / "cat" / "cat0.jpg"
    try:
        cat.rename(cat.with_name(os.fsdecode(b"M\xfcller.jpg")))
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    message = refused(tree, tmp_path)
    assert f"{cat.parent}: file b'M\\xfcller.jpg' is not UTF-8; rename it" in message


@pytest.mark.parametrize("name", ["a\nb", "a\rb", " a", "a ", "a\u00a0", "a\u2028b", " "])
def test_class_name_that_tfds_would_read_as_another_is_refused(
    tree: Path, tmp_path: Path, name: str
):
    (tree / "train" / "dog").rename(tree / "train" / name)
    shutil.rmtree(tree / "val" / "dog")
    message = refused(tree, tmp_path)
    assert f"{tree / 'train'}: class folder {name!r}: " in message
    assert "line break or a space at an end" in message


def test_class_name_with_spaces_within_is_kept(tree: Path, tmp_path: Path):
    for split in ("train", "val"):
        (tree / split / "dog").rename(tree / split / "Great Dane, ’s")
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    opened = datasets.open_records("pets", "train", str(tmp_path))
    assert opened.class_names == ("Great Dane, ’s", "cat")


def test_class_that_is_not_trained_is_refused(tree: Path, tmp_path: Path):
    (tree / "val" / "cow").mkdir()
    assert "cow: not a class; classes are cat, dog" in refused(tree, tmp_path)


def test_names_and_folders_that_cannot_be_are_refused(tree: Path, tmp_path: Path):
    assert "wanted small letters" in refused(tree, tmp_path, "My Pets")
    assert "not a folder" in refused(tree / "nowhere", tmp_path)
    assert "train: no such folder" in refused(tmp_path / "tree" / "val", tmp_path)


@pytest.mark.parametrize("version", ["2.0.0", "1.0.1", "10.0.0"])
def test_later_version_that_training_would_open_is_refused(
    tree: Path, tmp_path: Path, monkeypatch, version: str
):
    monkeypatch.setattr(image_folder, "fingerprint", None)  # Nothing is read before.
    later = tmp_path / "pets" / version
    later.mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    assert str(caught.value) == (
        f"{later}: is there already and would be used; give the set another name"
    )
    assert [path.name for path in later.parent.iterdir()] == [version]


def test_later_version_is_refused_beside_a_prepared_set_too(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    shutil.copytree(tmp_path / "pets" / "1.0.0", tmp_path / "pets" / "2.0.0")
    with pytest.raises(InputError, match=r"2\.0\.0: is there already and would be"):
        folder_to_tfds.find("pets", str(tmp_path))


def test_earlier_version_and_other_folders_are_no_hindrance(tree: Path, tmp_path: Path):
    for name in ("0.9.0", "notes", "incomplete.2.0.0"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    assert len(datasets.open_records("pets", "train", str(tmp_path))) == 10


def test_lost_file_is_named(tree: Path, tmp_path: Path):
    folder_to_tfds.prepare("pets", str(tmp_path), str(tree))
    (lost,) = (tmp_path / "pets" / "1.0.0").glob("*train*record*")
    lost.unlink()
    with pytest.raises(InputError, match=f"{lost.name}: missing"):
        datasets.open_records("pets", "train", str(tmp_path))


def test_set_too_large_to_sort_in_memory_is_the_same(tree: Path, tmp_path: Path, monkeypatch):
    folder_to_tfds.prepare("pets", str(tmp_path / "small"), str(tree))
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 100)
    folder_to_tfds.prepare("pets", str(tmp_path / "large"), str(tree))
    small, large = (
        datasets.open_records("pets", "train+validation", str(tmp_path / place))
        for place in ("small", "large")
    )
    assert [large[i] for i in range(len(large))] == [small[i] for i in range(len(small))]
    assert not list((tmp_path / "large").rglob("*.tmp"))
