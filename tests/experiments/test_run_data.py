"""A run knows the data that it began with, and needs them no more to be used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax import runs
from resnet_jax.data.device_dataset import Normalization
from resnet_jax.training.trainer import STATISTICS

FIELDS = (
    "dataset.name=image_folder,dataset.image_size=8,dataset.mean=pixel,dataset.std=channel,"
    "model.bn_group_size=8,batch_size=8,num_steps=4,log_every=2,evaluate_every=4,checkpoint_every=2"
)


def write(path: Path, low: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(low)
    Image.fromarray(rng.integers(low, low + 60, (8, 8, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def run(run_command, tmp_path_factory) -> Path:
    """A folder with a tree of images and a finished run on it."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                write(root / "tree" / split / name / f"{i}.png", 60 * label + i)
    (root / "tree" / "train" / "cat" / "sub").mkdir()
    write(root / "tree" / "train" / "cat" / "sub" / "0.png", 0)
    done = run_command("train", *flags(root))
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "image_folder: images: train 16, test 8; 2 classes" in lines
    assert "left out: 1 in folders within a class folder" in lines
    return root


def flags(root: Path) -> list[str]:
    config = f"configs/digits.py:resnet-8,{FIELDS}"
    return [
        f"--config={config}",
        f"--config.dataset.data_dir={root / 'tree'}",
        f"--workdir={root / 'run'}",
    ]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def evaluated(run_command, root: Path) -> tuple[float, str]:
    done = run_command("evaluate", f"--workdir={root / 'run'}", f"--data_dir={root / 'tree'}")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["loss"], done.stderr


def test_evaluation_depends_on_no_image_added_to_training(run_command, run: Path, copy: Path):
    before, _ = evaluated(run_command, run)
    for i in range(30):
        write(copy / "tree" / "train" / "dog" / f"new{i}.png", 190)
    assert evaluated(run_command, copy)[0] == before


def test_evaluation_on_other_images_says_so(run_command, copy: Path):
    write(copy / "tree" / "test" / "dog" / "new.png", 190)
    _, told = evaluated(run_command, copy)
    assert "note: other data than in training: test/dog has 5 images, had 4" in told


def test_prediction_needs_no_training_image(run_command, run: Path, copy: Path):
    image = run / "tree" / "test" / "cat" / "0.png"
    shutil.rmtree(copy / "tree")
    first, alone = (
        run_command("predict", f"--workdir={root / 'run'}", "--json", str(image))
        for root in (run, copy)
    )
    assert (alone.code, alone.stdout) == (0, first.stdout), alone.stderr


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_command_that_misses_the_data_names_its_flag(run_command, run: Path, copy: Path, command):
    """A run of an earlier version, which kept no statistics; its data have moved."""
    (copy / "run" / STATISTICS).unlink()
    path = copy / "run" / "config.json"
    path.write_text(path.read_text().replace(f"{run / 'tree'}", f"{copy / 'gone'}"))
    image = [str(run / "tree" / "test" / "cat" / "0.png")] if command == "predict" else []
    done = run_command(command, f"--workdir={copy / 'run'}", *image)
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    assert f"data_dir='{copy / 'gone'}': no such folder; if" in done.stderr
    assert "--data_dir" in done.stderr
    done = run_command(command, f"--workdir={copy / 'run'}", f"--data_dir={run / 'tree'}", *image)
    assert done.code == 0, done.stderr


def stopped_at_step_2(root: Path) -> None:
    (root / "run" / "summary.json").unlink()
    shutil.rmtree(root / "run" / "checkpoints" / "4")


def test_resumed_run_goes_on_with_the_statistics_that_it_kept(run_command, run: Path, copy: Path):
    """Other ones than those of its images, to see which it takes."""
    stopped_at_step_2(copy)
    path = copy / "run" / STATISTICS
    kept = Normalization.load(path)
    kept._replace(std=4 * kept.std).save(path)
    before = path.read_bytes()
    done = run_command("train", *flags(copy))
    assert done.code == 0, done.stderr
    assert path.read_bytes() == before
    first, other = (runs.read_run(root / "run").summary for root in (run, copy))
    assert other["test_loss"] != first["test_loss"]


def test_damaged_statistics_are_one_line_and_without_them_the_run_resumes(
    run_command, run: Path, copy: Path
):
    stopped_at_step_2(copy)
    path = copy / "run" / STATISTICS
    path.write_bytes(path.read_bytes()[:100])
    done = run_command("train", *flags(copy))
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.code, line.startswith(f"error: {path}: damaged (")) == (2, True)
    assert line.endswith("; delete it to compute it anew from the training images")
    path.unlink()
    done = run_command("train", *flags(copy))
    assert done.code == 0, done.stderr
    assert path.read_bytes() == (run / "run" / STATISTICS).read_bytes()


def test_run_resumes_on_its_own_data_alone(run_command, copy: Path):
    stopped_at_step_2(copy)
    write(copy / "tree" / "train" / "dog" / "new.png", 190)
    # Where the data lie belongs to the place, not to the run.
    done = run_command("train", *flags(copy))
    assert done.code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "holds a run on other data (train/dog has 9 images, had 8)" in line
    (copy / "tree" / "train" / "dog" / "new.png").unlink()
    done = run_command("train", *flags(copy))
    assert done.code == 0, done.stderr
