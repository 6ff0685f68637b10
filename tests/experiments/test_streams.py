"""Runs that stream their pictures: through the real commands, stopped and started again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import folder_to_tfds

REPOSITORY = Path(__file__).parents[2]
CONFIG = "--config=configs/imagenet.py:resnet-18,dataset.name=pets,dataset.test=test"
SMALL = {
    "dataset.image_size": 16,
    "streaming.scales": (18, 24),
    "streaming.shorter_side": 18,
    "streaming.num_workers": 0,
    "model.width": 4,
    "model.bn_group_size": 4,
    "batch_size": 4,
    "num_steps": 6,
    "log_every": 1,
    "evaluate_every": 6,
    "checkpoint_every": 3,
    "schedule.learning_rate": 0.01,
    "num_devices": 1,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """A set of ten pictures to train on and six to test on, of two classes."""
    root, rng = tmp_path_factory.mktemp("streams"), np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            (root / "tree" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(100 * label, 100 * label + 99, (30, 24 + i, 3), np.uint8)
                Image.fromarray(pixels).save(root / "tree" / split / name / f"{name}{i}.jpg")
    folder_to_tfds.prepare("pets", str(root), str(root / "tree"))
    return root


def flags(data_dir: Path, workdir: Path, **fields) -> list[str]:
    fields = {name.replace("__", "."): value for name, value in fields.items()}
    values = {"dataset.data_dir": str(data_dir), **SMALL, **fields}
    return [
        CONFIG,
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def losses(workdir: Path) -> list[tuple]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["split"], row["loss"], row["error"]) for row in rows]


@pytest.mark.slow
def test_stopped_stream_continues_in_mid_epoch_with_the_same_bits(
    run_command, data_dir: Path, tmp_path: Path
):
    done = run_command("train", *flags(data_dir, tmp_path / "whole"))
    assert done.code == 0, done.stderr
    # The checkpoint of step 3 is in mid-epoch: an epoch is two and a half steps.
    run_command("train", *flags(data_dir, tmp_path / "parts"))
    for path in (tmp_path / "parts").glob("checkpoints/6"):
        path.rename(tmp_path / "later")
    (tmp_path / "parts" / "summary.json").unlink()
    # Another number of workers, which belongs to the place, not to the run.
    done = run_command("train", *flags(data_dir, tmp_path / "parts", streaming__num_workers=1))
    assert done.code == 0, done.stderr
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    evaluated = run_command("evaluate", f"--workdir={tmp_path / 'parts'}")
    assert json.loads(evaluated.stdout)["examples"] == 6, evaluated.stderr
    # The run adds its examples up on the devices, in float32.
    last = losses(tmp_path / "whole")[-1][2]
    assert json.loads(evaluated.stdout)["loss"] == pytest.approx(last, rel=1e-6)


def test_broken_picture_ends_a_run_with_its_name_in_one_line(
    run_command, data_dir: Path, tmp_path: Path, monkeypatch
):
    whole = data_dir / "tree" / "train"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            shutil.copy(whole / name / f"{name}0.jpg", tmp_path / "tree" / split / name)
    cut = (whole / "cat" / "cat0.jpg").read_bytes()[:-20]
    (tmp_path / "tree" / "train" / "cat" / "cut.jpg").write_bytes(cut)
    monkeypatch.setattr("resnet_jax.data.image_ops.decode", lambda *_, **__: None)
    folder_to_tfds.prepare("pets", str(tmp_path), str(tmp_path / "tree"))
    done = run_command("train", *flags(tmp_path, tmp_path / "run"))
    assert done.code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == "error: dataset: cut.jpg: unreadable image (Premature end of JPEG file)"
    assert not (tmp_path / "run" / "error.txt").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset__name": "digits"}, "dataset.name='digits': is not streamed"),
        ({"dataset__name": "pest"}, "dataset='pest'"),
        ({"dataset__train": "trian"}, "train (10), test (6)"),
        ({"dataset__mean": "pixel"}, "dataset.mean='pixel': allowed are channel, none, imagenet"),
        ({"dataset__image_size": 20}, "streaming.scales=(18, 24): too small for crops of"),
        ({"streaming__shorter_side": 8}, "streaming.shorter_side=8: too small for crops of"),
        ({"streaming__scales": "(24, 18)"}, "wanted two lengths in pixels, the lower first"),
        ({"streaming__augmentation": "scales"}, "nearest: scale"),
        (
            {"streaming__pca_lighting_std": -1.0},
            "streaming.pca_lighting_std=-1.0: must not be negative",
        ),
        ({"streaming__num_workers": -1}, "streaming.num_workers=-1: must not be negative"),
    ],
)
def test_mistake_is_one_line_and_leaves_no_folder(
    run_command, data_dir: Path, tmp_path: Path, fields: dict, message: str
):
    done = run_command("train", *flags(data_dir, tmp_path / "run", **fields))
    assert done.code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.weekly
def test_sigterm_in_mid_epoch_loses_no_bit(data_dir: Path, tmp_path: Path):
    def train(name: str) -> subprocess.Popen:
        fields = {"num_steps": 40, "checkpoint_every": 1000, "streaming__num_workers": 2}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.train"),
                *flags(data_dir, tmp_path / name, **fields, evaluate_every=40),
            ],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )

    assert train("whole").wait() == 0
    log, stops = tmp_path / "stopped" / "metrics.jsonl", []
    for turn in range(3):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        process = train("stopped")
        while turn < 2 and process.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) >= before + 5:
                os.killpg(process.pid, signal.SIGTERM)  # to the workers as well
                break
            time.sleep(0.01)
        printed, _ = process.communicate()
        stops += [int(step) for step in re.findall(r"stopped at step (\d+), saved", printed)]
    assert len(stops) == 2
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


@pytest.mark.weekly
def test_two_processes_train_on_the_same_pixels_as_one(data_dir: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator=localhost:{free.getsockname()[1]}"
    # Tanh has no kink: a ReLU may be flipped by the last bit of a sum in another order.
    fields = {"num_devices": 2, "model.activation": "tanh", "batch_size": 8}

    def train(name: str, devices: int, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.train"),
                *flags(data_dir, tmp_path / name, **fields),
                *more,
            ],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
        )

    assert train("one", 2).wait() == 0
    pair = [
        train("two", 1, address, "--num_processes=2", f"--process_id={number}")
        for number in range(2)
    ]
    assert [process.wait() for process in pair] == [0, 0]
    for ours, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2:] == pytest.approx(theirs[2:], rel=1e-4)
