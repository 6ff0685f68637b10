"""Runs as jobs of submitit: its local executor, and Slurm where there is one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from resnet_jax.runs import read_run

submitit = pytest.importorskip("submitit")

from resnet_jax.errors import InputError  # noqa: E402
from resnet_jax.sweeps import slurm  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
SWEEP = """
TITLE = "Tiny networks"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"
COMMON = {
    "model.width": 4, "model.bn_group_size": 8, "batch_size": 16, "num_steps": STEPS,
    "dataset.train": "train[:200]", "dataset.test": "test[:50]",
}

def get_sweep(seeds=1):
    for seed in range(seeds):
        yield {"model.name": "plain-8", "seed": seed}
"""


def sweep(
    tmp_path: Path, *flags: str, steps: int = 4, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess:
    path = tmp_path / "tiny.py"
    path.write_text(SWEEP.replace("STEPS", str(steps)))
    command = [sys.executable, "-m", "experiments.sweep", f"--config={path}"]
    return subprocess.run(
        [*command, f"--workdir={tmp_path / 'runs'}", *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )


needs_slurm = pytest.mark.usefixtures("slurm")


def wait_for_slurm(tmp_path: Path, condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = [path.read_text() for path in (tmp_path / "runs" / "submitit").glob("*.err")]
        assert time.monotonic() < deadline, "\n".join(logs)
        time.sleep(0.5)


@pytest.mark.weekly
def test_local_executor_trains_a_sweep_to_its_report(tmp_path: Path):
    done = sweep(tmp_path, "--executor=submitit-local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_run(tmp_path / "runs" / "plain-8-seed0").status == "completed"
    assert (tmp_path / "runs" / "report" / "index.html").exists()


@pytest.mark.weekly
def test_job_that_fails_says_where_to_look(tmp_path: Path):
    (tmp_path / "runs" / "plain-8-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "plain-8-seed0" / "tensorboard").write_text("not a folder")
    done = sweep(tmp_path, "--executor=submitit-local")
    assert done.returncode == 1
    assert "plain-8-seed0: failed" in done.stdout
    assert "log.txt" in done.stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("partition", "expected key=value"),
        ("slurm_partitoin=gpu", "partitoin"),
        ("timeout_min=long", "timeout_min"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, setting: str, message: str):
    with pytest.raises(InputError, match=message):
        slurm.make_executor("local", tmp_path, [setting])


def test_cluster_that_is_not_there_leaves_no_folder(tmp_path: Path):
    (tmp_path / "submitit.py").write_text("raise ImportError")  # instead of the package
    path = {"PYTHONPATH": str(tmp_path)}
    done = sweep(tmp_path, "--executor=slurm", environment=path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: executor: this one needs the package submitit; install it with: "
        "pip install submitit\n"
    )
    assert not (tmp_path / "runs").exists()


@needs_slurm
def test_slurm_trains_a_sweep_and_queues_no_run_twice(tmp_path: Path):
    first = sweep(tmp_path, "--executor=slurm", "--seeds=2", steps=30)
    assert first.returncode == 0, first.stderr
    assert "submitted 2 runs" in first.stdout
    again = sweep(tmp_path, "--executor=slurm", "--seeds=2", steps=30)
    assert "submitted 0 runs; 2 are in the queue already" in again.stdout
    folders = [tmp_path / "runs" / f"plain-8-seed{seed}" for seed in range(2)]
    wait_for_slurm(tmp_path, lambda: all((f / "summary.json").exists() for f in folders))
    assert [read_run(folder).status for folder in folders] == ["completed", "completed"]


@needs_slurm
@pytest.mark.weekly
def test_preempted_slurm_job_saves_and_resumes(tmp_path: Path):
    assert sweep(tmp_path, "--executor=slurm", steps=3000).returncode == 0
    folder = tmp_path / "runs" / "plain-8-seed0"
    wait_for_slurm(tmp_path, (folder / "metrics.jsonl").exists)
    jobs = json.loads((tmp_path / "runs" / "submitit" / "jobs.json").read_text())
    preempt = ["scancel", "--signal=USR2", jobs[folder.name]]
    wait_for_slurm(tmp_path, lambda: bool((folder / "metrics.jsonl").read_text()))
    subprocess.run(preempt, check=True)
    wait_for_slurm(tmp_path, lambda: "stopped at step" in (folder / "log.txt").read_text())
    wait_for_slurm(tmp_path, (folder / "summary.json").exists, seconds=400)
    assert read_run(folder).status == "completed"
