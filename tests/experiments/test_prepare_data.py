"""The command that prepares data: one line of result, or one line that says what is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import raw_readers, small

REPOSITORY = Path(__file__).parents[2]


def prepare_data(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.prepare_data", *flags]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


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


def test_prepared_set_is_reported_with_its_place_and_sizes(prepared: Path):
    done = prepare_data("--dataset=cifar10", f"--data_dir={prepared}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cifar10 is already prepared",
        f"{prepared / 'cifar10' / '3.0.2'}: train 10, test 10",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--dataset"),
        (("--dataset=cifar11",), "nearest: cifar10"),
        (("--dataset=cifar10", "--source=/nowhere/at/all"), "not a folder"),
        (("--dataset=mnist", "--source=."), "missing t10k-images-idx3-ubyte.gz"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(flags: tuple[str, ...], message: str, tmp_path: Path):
    done = prepare_data(*flags, f"--data_dir={tmp_path}")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_too_small_set_is_not_prepared(prepared: Path, tmp_path: Path):
    tree, data_dir = prepared.parent / "tree", tmp_path / "other"
    done = prepare_data("--dataset=cifar10", f"--source={tree}", f"--data_dir={data_dir}")
    assert done.returncode == 2
    assert "10 images, cifar10 has 50000 in this split" in done.stderr
    assert not (data_dir / "cifar10" / "3.0.2").exists()


def test_tree_of_pictures_becomes_a_set_of_the_name_given(prepared: Path, tmp_path: Path):
    tree = prepared.parent / "tree"
    flags = ("--dataset=small", f"--source={tree}", f"--data_dir={tmp_path / 'new'}")
    done = prepare_data(*flags)
    place = f"{tmp_path / 'new' / 'small' / '1.0.0'}: train 10, test 10"
    assert done.stdout.splitlines()[-1] == place, done.stderr
    assert prepare_data(*flags).stdout.splitlines() == ["small is already prepared", place]
