"""One command trains a whole sweep, and resumes whatever interrupts it."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.reporting import archive
from resnet_jax.sweeps.status import last_checkpoint
from resnet_jax.training.checkpoints import load_weights

REPOSITORY = Path(__file__).parents[2]
MODULE = "experiments.sweep"
TIMES = ("images_per_second", "wall_seconds")

SWEEP = """
TITLE = "Tiny networks"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"
COMMON = {
    "model.width": 4, "model.bn_group_size": 8, "batch_size": 16, "num_steps": 600,
    "log_every": 20, "evaluate_every": 200, "checkpoint_every": 100,
    "dataset.train": "train[:200]", "dataset.test": "test[:50]",
}

def get_sweep(seeds=1):
    for seed in range(seeds):
        for name in ("plain-8", "resnet-8"):
            yield {"model.name": name, "seed": seed}
"""

NAMES = ("plain-8-seed0", "resnet-8-seed0")


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(SWEEP)
    return path


def start(
    sweep_file: Path, workdir: Path, *flags: str, program: tuple[str, ...] = ("-m", MODULE)
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *program, f"--config={sweep_file}", f"--workdir={workdir}", *flags],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def sweep(sweep_file: Path, workdir: Path, *flags: str) -> tuple[int, str, str]:
    return finish(start(sweep_file, workdir, *flags))


def results(workdir: Path) -> list[dict]:
    """Rows of the report's table, less the columns that tell times."""
    with (workdir / "report" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]


def last_step(workdir: Path, name: str) -> int:
    metrics = workdir / name / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def training_process(workdir: Path, name: str) -> int | None:
    """The id of the process that trains the run in that folder."""
    wanted = f"--workdir={workdir / name}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # It has just ended.
                continue
            if wanted in arguments and b"experiments.train" in arguments:
                return int(entry.name)
    return None


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.slow
def test_sweep_trains_reports_and_has_nothing_left_to_do(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    code, output, errors = sweep(sweep_file, workdir, "--num_steps=4")
    assert code == 0, errors
    assert [row["status"] for row in results(workdir)] == ["completed", "completed"]
    assert str(workdir / "report" / "index.html") in output
    described = json.loads((workdir / "sweep.json").read_text())
    assert [run["name"] for run in described["runs"]] == list(NAMES)
    assert "training error" in (workdir / NAMES[0] / "log.txt").read_text()

    before = [(workdir / name / "summary.json").stat().st_mtime_ns for name in NAMES]
    code, output, errors = sweep(sweep_file, workdir, "--num_steps=4")
    assert code == 0, errors
    assert "2 of 2 runs are finished already" in output
    assert [(workdir / name / "summary.json").stat().st_mtime_ns for name in NAMES] == before

    archive(workdir, tmp_path / "archive")
    shutil.copytree(tmp_path / "archive", tmp_path / "elsewhere")
    asked = ("--num_steps=4", "--seeds=2", "--executor=print")
    code, output, errors = sweep(sweep_file, tmp_path / "elsewhere", *asked)
    assert code == 0, errors
    assert [Path(line.split()[-1]).name for line in output.splitlines()[:-1]] == [
        "plain-8-seed1",
        "resnet-8-seed1",
    ]


@pytest.mark.weekly
def test_failed_run_says_why_and_the_others_finish(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    (workdir / NAMES[0]).mkdir(parents=True)
    in_the_way = workdir / NAMES[0] / "tensorboard"
    in_the_way.write_text("not a folder")
    code, output, errors = sweep(sweep_file, workdir, "--num_steps=4")
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith(f"{NAMES[0]}: failed")]
    assert f"{in_the_way}: File exists" in line
    assert str(workdir / NAMES[0] / "log.txt") in line
    assert f"1 of 2 runs failed: {NAMES[0]}" in errors
    assert [row["status"] for row in results(workdir)] == ["partial", "completed"]

    in_the_way.unlink()
    code, output, errors = sweep(sweep_file, workdir, "--num_steps=4")
    assert code == 0, errors
    assert f"{NAMES[1]}: started" not in output
    assert [row["status"] for row in results(workdir)] == ["completed", "completed"]


@linux
@pytest.mark.weekly
def test_killed_sweep_and_killed_worker_change_no_result(sweep_file: Path, tmp_path: Path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    code, _, errors = sweep(sweep_file, undisturbed)
    assert code == 0, errors

    process = start(sweep_file, disturbed)
    wait_until(lambda: last_step(disturbed, NAMES[1]) >= 120)
    killed = training_process(disturbed, NAMES[1])
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: training_process(disturbed, NAMES[1]) not in (None, killed))
    process.send_signal(signal.SIGKILL)
    _, output, _ = finish(process)
    assert f"{NAMES[1]}: killed by SIGKILL; resumes from its last checkpoint" in output
    # At once: workers that the sweep left behind may still be saving.
    code, _, errors = sweep(sweep_file, disturbed)
    assert code == 0, errors
    assert results(disturbed) == results(undisturbed)


@pytest.mark.slow
@linux
def test_ctrl_c_saves_the_runs_for_the_command_to_resume(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    process = start(sweep_file, workdir, "--filter=plain", "--override=num_steps=20000")
    wait_until(lambda: last_step(workdir, NAMES[0]) >= 20)
    process.send_signal(signal.SIGINT)
    code, output, _ = finish(process)
    assert code == 75
    assert output.splitlines()[-1] == "stopped; rerun the command to resume"
    saved = [int(path.name) for path in (workdir / NAMES[0] / "checkpoints").iterdir()]
    assert max(saved) >= last_step(workdir, NAMES[0])


@pytest.mark.weekly
def test_slices_of_a_sweep_in_copied_folders_end_with_the_same_bits(
    sweep_file: Path, tmp_path: Path
):
    undisturbed, first, second = (tmp_path / name for name in ("undisturbed", "first", "second"))
    # One run at a time: with other numbers a run has other cores, and rounds otherwise.
    same = ("--workers=1", "--override=num_steps=3000")
    code, _, errors = sweep(sweep_file, undisturbed, *same)
    assert code == 0, errors

    code, output, errors = sweep(sweep_file, first, *same, "--max_minutes=0.2")
    assert code == 75, errors
    assert output.splitlines()[-1] == "stopped; rerun the command to resume"
    assert not (first / NAMES[1] / "summary.json").exists()
    shutil.copytree(first, second)
    shutil.rmtree(first)
    code, _, errors = sweep(sweep_file, second, *same, "--max_minutes=10")
    assert code == 0, errors
    assert results(second) == results(undisturbed)
    for name in NAMES:
        ours, theirs = (
            load_weights(folder / name / "checkpoints") for folder in (second, undisturbed)
        )
        jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


@linux
@pytest.mark.weekly
def test_run_that_does_not_hear_the_end_is_killed_and_resumes(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    same = ("--filter=plain", "--override=num_steps=3000")
    # As `python -m experiments.sweep`, with less grace.
    code = "import runpy; from resnet_jax.sweeps import local_pool; local_pool.GRACE_SECONDS = 2; "
    code += f"runpy.run_module('{MODULE}', run_name='__main__', alter_sys=True)"
    process = start(sweep_file, workdir, *same, "--max_minutes=1.5", program=("-c", code))
    wait_until(lambda: last_checkpoint(workdir / NAMES[0]) > 0)
    os.kill(training_process(workdir, NAMES[0]), signal.SIGSTOP)
    code, output, errors = finish(process)
    assert code == 75, errors
    stopped_at, saved = last_step(workdir, NAMES[0]), last_checkpoint(workdir / NAMES[0])
    *_, killed, ended, last = output.splitlines()
    assert killed == f"killed, not saved within 2 s: {NAMES[0]}"
    assert ended.startswith(f"{NAMES[0]}: stopped at step {stopped_at}")
    assert last == "stopped; rerun the command to resume"

    code, output, errors = sweep(sweep_file, workdir, *same, "--max_minutes=5")
    assert code == 0, errors
    assert f"{NAMES[0]}: resumes from step {saved}" in output
    assert [row["status"] for row in results(workdir)] == ["completed"]


@pytest.mark.slow
def test_second_sweep_on_a_folder_is_turned_away(sweep_file: Path, tmp_path: Path):
    from resnet_jax.runs import lockfile

    with lockfile.claim(tmp_path / "runs"):
        code, _, errors = sweep(sweep_file, tmp_path / "runs")
    assert code == 2
    assert errors.splitlines() == [
        f"error: workdir='{tmp_path / 'runs'}': another process is training there"
    ]


def test_printed_lines_are_the_runs_that_are_left(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    (workdir / NAMES[0]).mkdir(parents=True)
    summary = {"format": 1, "status": "diverged"}
    (workdir / NAMES[0] / "summary.json").write_text(json.dumps(summary))
    code, output, errors = sweep(sweep_file, workdir, "--executor=print", "--seeds=2")
    assert code == 0, errors
    *lines, last = output.splitlines()
    commands = [shlex.split(line) for line in lines]
    assert [Path(command[-1]).name for command in commands] == [
        "resnet-8-seed0",
        "plain-8-seed1",
        "resnet-8-seed1",
    ]
    assert all(command[:3] == ["python", "-m", "experiments.train"] for command in commands)
    assert last.endswith(f"python -m experiments.report --workdir={workdir}")


@pytest.mark.slow
def test_dry_run_tells_sizes_and_time_and_leaves_no_trace(sweep_file: Path, tmp_path: Path):
    workdir = tmp_path / "runs"
    code, output, errors = sweep(sweep_file, workdir, "--dry_run", "--seeds=2")
    assert code == 0, errors
    line = next(line for line in output.splitlines() if line.startswith("resnet-8-seed1"))
    # Multiply-adds by hand: convolutions at 8×8, 4×4 and 2×2 pixels, and the classifier.
    multiply_adds = 64 * 9 * (1 * 4 + 2 * 4 * 4) + 16 * 9 * (4 * 8 + 8 * 8)
    multiply_adds += 4 * 9 * (8 * 16 + 16 * 16) + 16 * 10
    assert f"{multiply_adds:,}" in line
    assert "4 of 4 runs to do: about 0:" in output
    assert not workdir.exists()


@pytest.mark.weekly
def test_dry_run_tells_whole_names_on_a_narrow_terminal(sweep_file: Path, tmp_path: Path):
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    command = [sys.executable, "-m", MODULE, "--dry_run", f"--config={sweep_file}"]
    done = subprocess.Popen(
        [*command, f"--workdir={tmp_path / 'runs'}"], cwd=REPOSITORY, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = ""
    with contextlib.suppress(OSError):  # at its end
        while part := os.read(terminal, 1024):
            text += part.decode()
    assert done.wait() == 0
    assert all(any(line.startswith(f"{name} ") for line in text.splitlines()) for name in NAMES)


def test_dry_run_is_refused_where_the_sweep_would_be(sweep_file: Path, tmp_path: Path):
    code, _, errors = sweep(sweep_file, tmp_path, "--executor=print", "--filter=plain")
    assert code == 0, errors
    before = (tmp_path / "sweep.json").read_bytes()
    for flags in (["--num_steps=2"], ["--num_steps=2", "--dry_run"]):
        code, _, errors = sweep(sweep_file, tmp_path, *flags)
        assert code == 2
        assert errors.count("\n") == 1
        assert "holds another sweep (num_steps: None, now 2; " in errors
    assert (tmp_path / "sweep.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config=configs/sweeps/digit.py",), "nearest: digits.py"),
        (("--filter=vgg",), "matches no run; they are plain-8-seed0, resnet-8-seed0"),
        (("--seeds=0",), "seeds=0: must be at least 1"),
        (("--num_steps=0",), "num_steps=0: must be at least 1"),
        (("--workers=0",), "workers=0"),
        (("--executor=lokal",), "nearest: local"),
        (("--max_minutes=0",), "max_minutes=0: must be above 0"),
        (("--max_minutes=5", "--executor=print"), "does not wait for the runs"),
        (("--submitit=timeout_min=9",), "submitit='timeout_min=9': executor='local' makes no such"),
        (("--override=model.optoin=B",), "nearest: model.option"),
        (("--override=nothing",), "expected field=value"),
        (("--override=seed=3",), "seed: tiny varies this field"),
        (("--override=schedule.learning_rate=nan",), "learning_rate"),
        (("--workdir=/dev/null/runs",), "cannot be written"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    sweep_file: Path, tmp_path: Path, flags: tuple[str, ...], message: str
):
    code, _, errors = sweep(sweep_file, tmp_path / "runs", *flags)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "runs").exists()
