"""The command that prepares data: one line of result, or one line that says what is wrong."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import folder_to_tfds, raw_readers, small
from resnet_jax.errors import InputError


@pytest.fixture
def prepare_data(run_command):
    """Runs the command."""
    return partial(run_command, "prepare_data")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets with a CIFAR-10 of one image a class and split."""
    monkeypatch.setitem(raw_readers.NUM_EXAMPLES, "cifar10", {"train": 10, "test": 10})
    pixels = np.zeros((32, 32, 3), np.uint8)
    for split in ("train", "test"):
        for name in raw_readers.CIFAR10_CLASSES:
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "0.png")
    small.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "tree"))
    return tmp_path / "tfds"


@pytest.mark.slow
def test_prepared_set_is_reported_with_its_place_and_sizes(prepare_data, prepared: Path):
    done = prepare_data("--dataset=cifar10", f"--data_dir={prepared}")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cifar10 is already prepared",
        f"{prepared / 'cifar10' / '3.0.2'}: train 10, test 10",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--dataset"),
        (("--dataset=digits",), "'digits': nothing to prepare: it comes with scikit-learn"),
        (("--dataset=digits", "--source=."), "'digits': nothing to prepare"),
        (("--dataset=image_folder", "--source=."), "dataset.data_dir=TREE"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    prepare_data, flags: tuple[str, ...], message: str, tmp_path: Path
):
    done = prepare_data(*flags, f"--data_dir={tmp_path}")
    assert done.code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_too_small_set_is_not_prepared(prepare_data, prepared: Path, tmp_path: Path):
    tree, data_dir = prepared.parent / "tree", tmp_path / "other"
    done = prepare_data("--dataset=cifar10", f"--source={tree}", f"--data_dir={data_dir}")
    assert done.code == 2
    assert "10 images, cifar10 has 50000 in this split" in done.stderr
    assert not (data_dir / "cifar10" / "3.0.2").exists()


def test_tree_of_pictures_becomes_a_set_of_the_name_given(
    prepare_data, prepared: Path, tmp_path: Path
):
    tree = prepared.parent / "tree"
    flags = ("--dataset=small", f"--source={tree}", f"--data_dir={tmp_path / 'new'}")
    done = prepare_data(*flags)
    place = f"{tmp_path / 'new' / 'small' / '1.0.0'}: train 10, test 10"
    assert done.stdout.splitlines()[-1] == place, done.stderr
    assert prepare_data(*flags).stdout.splitlines() == ["small is already prepared", place]
    assert "Downloading" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "examples/s" not in done.stderr


def write_pets(root: Path, count: int, size: int = 20) -> Path:
    rng = np.random.default_rng(count)
    for name in ("cat", "dog"):
        (root / "train" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{i}.png")
    return root


@pytest.mark.parametrize("count", [3, 2])
def test_set_that_was_prepared_from_other_images_is_refused(
    prepare_data, tmp_path: Path, count: int
):
    first = write_pets(tmp_path / "first", 2)
    other = write_pets(tmp_path / "other", count, size=21)
    flags = ("--dataset=pets", f"--data_dir={tmp_path / 'sets'}")
    assert prepare_data(*flags, f"--source={first}").code == 0
    again = prepare_data(*flags, f"--source={first}")
    assert (again.code, again.stdout.splitlines()[0]) == (0, "pets is already prepared")
    done = prepare_data(*flags, f"--source={other}")
    assert done.code == 2
    assert "was prepared from other images" in done.stderr


def test_small_set_is_compared_with_the_source(prepared: Path):
    tree = prepared.parent / "tree"
    small.prepare("cifar10", str(prepared), str(tree))
    Image.new("RGB", (32, 32), (1, 0, 0)).save(tree / "test" / "cat" / "0.png")
    with pytest.raises(InputError, match="holds other images than source="):
        small.prepare("cifar10", str(prepared), str(tree))


def test_what_is_left_out_is_said(prepare_data, tmp_path: Path):
    tree = write_pets(tmp_path / "tree", 2)
    (tree / "train" / "cat" / "sub").mkdir()
    (tree / "train" / "cat" / "sub" / "0.png").write_bytes(b"")
    (tree / "train" / "cat" / "._0.jpg").write_bytes(b"")
    done = prepare_data("--dataset=pets", f"--source={tree}", f"--data_dir={tmp_path / 'sets'}")
    assert done.stdout.splitlines()[:2] == [
        f"{tree}: images: train 4; 2 classes",
        "left out: 1 hidden (such as macOS's ._*), 1 in folders within a class folder",
    ]


def test_failure_leaves_nothing_behind_and_names_all_broken_images(prepare_data, tmp_path: Path):
    tree = write_pets(tmp_path / "tree", 3)
    for name in ("cat/1.png", "dog/2.png"):
        (tree / "train" / name).write_bytes(b"broken")
    done = prepare_data("--dataset=pets", f"--source={tree}", f"--data_dir={tmp_path / 'sets'}")
    assert done.code == 2
    assert all(name in done.stderr for name in ("2 broken: ", "cat/1.png", "dog/2.png"))
    assert not (tmp_path / "sets").exists()
    done = prepare_data("--dataset=mnist", "--source=.", f"--data_dir={tmp_path / 'sets'}")
    assert done.code == 2
    assert not (tmp_path / "sets").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("is_known_before", [True, False])
def test_full_disk_is_one_line_and_leaves_nothing(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known_before: bool
):
    tree = write_pets(tmp_path / "tree", 30, size=60)
    if not is_known_before:
        monkeypatch.setattr(folder_to_tfds, "_check_space", lambda *_: None)
    with pytest.raises(InputError, match=r"the disk of .* has|No space left") as caught:
        folder_to_tfds.prepare("pets", str(small_disk), str(tree))
    assert "\n" not in str(caught.value)
    assert not list(small_disk.iterdir())
