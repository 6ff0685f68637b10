"""Several real processes train one run as one does, stop together, and refuse together."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import digits
from resnet_jax import runs
from resnet_jax.errors import STOPPED, WRONG_INPUT
from resnet_jax.runs import Recipe, arguments, load_recipe
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.run import train
from resnet_jax.training.trainer import build

# Tanh has no kink: a ReLU may be flipped by the last bit of a sum in another order.
TINY = (
    "resnet-8,batch_size=16,num_steps=12,log_every=4,evaluate_every=6,checkpoint_every=6,"
    "model.width=4,model.bn_group_size=4,model.activation=tanh,dataset.train=train[:200],"
    "dataset.test=test[:50]"
)
weekly = pytest.mark.weekly
COMMAND = [sys.executable, "-m", "experiments.train"]


class Processes:
    """Two processes of `experiments.train`, with so many CPU devices each.

    Args:
      workdirs: of each.
      flags: of both.
      last: of the second alone.
    """

    def __init__(self, workdirs, *flags, last=(), devices=2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        flags = [f"--config=configs/digits.py:{TINY}", f"--coordinator={address}", *flags]
        environment = {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"}
        self.processes = []
        for number, workdir in enumerate(workdirs):
            own = [f"--workdir={workdir}", f"--process_id={number}", *(last if number else ())]
            self.processes.append(
                subprocess.Popen(
                    [*COMMAND, *flags, "--num_processes=2", *own],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **environment},
                )
            )

    def wait(self):
        """(exit code, standard output, error lines) of each."""
        ends = []
        try:
            for process in self.processes:
                output, errors = process.communicate(timeout=300)
                wrong = [line for line in errors.splitlines() if line.startswith("error:")]
                lines = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
                ends.append((process.returncode, lines, wrong))
        finally:
            for process in self.processes:
                process.kill()
        return ends


def trained_here(workdir, **fields):
    recipe = Recipe.from_config(arguments.update(digits.get_config(TINY), fields))
    assert train(recipe, workdir) == 0
    return workdir


def final_state(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(build(load_recipe(workdir)).state_template())


def assert_same_training(a, b, **tolerances):
    """The same figures and parameters."""
    first, second = runs.read_run(a), runs.read_run(b)
    assert first.status == second.status == "completed"
    for name in ("step", "split", "error"):
        assert [row[name] for row in first.rows] == [row[name] for row in second.rows]
    losses = [[row["loss"] for row in run.rows] for run in (first, second)]
    np.testing.assert_allclose(*losses, **tolerances)
    states = final_state(a), final_state(b)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **tolerances),
        *[(state.variables, state.opt_state) for state in states],
    )


@pytest.fixture(scope="module")
def one_devices(tmp_path_factory):
    return trained_here(tmp_path_factory.mktemp("one") / "run", num_devices=1)


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    return trained_here(tmp_path_factory.mktemp("four") / "run", num_devices=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "devices"),
    [("jit", "four"), *(pytest.param(engine, "one", marks=weekly) for engine in ("jit", "pmap"))],
)
def test_two_processes_train_as_one_does(engine, devices, request, tmp_path):
    alone = request.getfixturevalue(f"{devices}_devices")
    processes = Processes([tmp_path, tmp_path], f"--config.parallel={engine}")
    (code, printed, _), (other_code, other_printed, _) = processes.wait()
    assert (code, other_code) == (0, 0)
    assert "resnet-8: training error" in printed[-1]
    assert other_printed == []  # One writes and prints.
    assert runs.read_run(tmp_path).info["devices"].startswith("4 x")
    assert_same_training(tmp_path, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("--config.seed=3", "config: process 1 has another one than process 0"),
        pytest.param("--config.batch_size=0", "batch_size=0: must be at least 1", marks=weekly),
        pytest.param("--config.sede=3", "no config field 'sede'", marks=weekly),
    ],
)
def test_mistake_of_one_process_ends_both(wrong, line, tmp_path):
    ends = Processes([tmp_path / "run"] * 2, last=[wrong]).wait()
    assert [code for code, *_ in ends] == [WRONG_INPUT] * 2
    assert all(len(errors) == 1 and line in errors[0] for *_, errors in ends)
    assert not (tmp_path / "run").exists()


@weekly
def test_folders_that_are_not_the_same_one_are_refused_by_both(tmp_path):
    ends = Processes([tmp_path / "a", tmp_path / "b"]).wait()
    assert [code for code, *_ in ends] == [WRONG_INPUT] * 2
    line = f"process 1: workdir='{tmp_path / 'b'}': not the folder in which process 0 trains"
    assert all(len(errors) == 1 and line in errors[0] for *_, errors in ends)
    assert not (tmp_path / "a" / "config.json").exists()


@weekly
def test_finished_run_that_has_lost_its_log_is_refused_by_both(four_devices, tmp_path):
    workdir = shutil.copytree(four_devices, tmp_path / "run")
    for name in ("summary.json", "metrics.jsonl"):
        (workdir / name).unlink()
    ends = Processes([workdir] * 2).wait()
    assert [code for code, *_ in ends] == [WRONG_INPUT] * 2
    line = "metrics.jsonl: the row of step 12 is missing, without which"
    assert all(len(errors) == 1 and line in errors[0] for *_, errors in ends)


@weekly
def test_checkpoint_that_one_process_does_not_see_is_no_reason_to_resume_from_another(tmp_path):
    first, behind = tmp_path / "first", tmp_path / "behind"
    trained_here(first, checkpoint_every=4, num_devices=2)
    (first / "summary.json").unlink()
    shutil.copytree(first, behind)
    shutil.rmtree(behind / "checkpoints" / "12")
    (behind / ".lock").unlink()
    (behind / ".lock").symlink_to(first / ".lock")  # To the processes it is one folder.
    ends = Processes([first, behind], "--config.checkpoint_every=4").wait()
    assert [code for code, *_ in ends] == [WRONG_INPUT] * 2
    line = f"process 1: {behind / 'checkpoints' / '12'}: not there, where process 0 has it"
    assert all(len(errors) == 1 and line in errors[0] for *_, errors in ends)
    assert not (first / "summary.json").exists()


@weekly
@pytest.mark.parametrize(("asked", "number"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_one_stopped_process_stops_both_and_one_resumes_alone(asked, number, tmp_path):
    length = "--config.num_steps=200"
    both = Processes([tmp_path, tmp_path], length)
    while not next(both.processes[0].stdout).startswith("step"):
        pass
    both.processes[number].send_signal(asked)
    (code, printed, _), (other_code, *_) = both.wait()
    assert (code, other_code) == (STOPPED, STOPPED)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        saved = checkpoints.steps[-1]
    assert 0 < saved < 200
    assert printed[-1] == f"stopped at step {saved}, saved; rerun the command to resume"
    trained_here(tmp_path, num_steps=200, num_devices=2)
    whole = trained_here(tmp_path / "whole", num_steps=200, num_devices=4)
    rows = [runs.read_run(path).rows for path in (tmp_path, whole)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    losses = [[row["loss"] for row in of_run if row["step"] <= saved] for of_run in rows]
    np.testing.assert_allclose(*losses, rtol=1e-3)


@weekly
def test_process_that_is_killed_takes_the_other_with_it(tmp_path):
    # With two devices each, XLA:CPU waits for JAX's heartbeat (100 s), which aborts.
    both = Processes([tmp_path, tmp_path], "--config.num_steps=2000", devices=1)
    while not next(both.processes[0].stdout).startswith("step"):
        pass
    both.processes[1].kill()
    (code, *_), _ = both.wait()
    assert code == 1
    assert runs.read_run(tmp_path).status == "failed"


LONG = [*COMMAND, f"--config=configs/digits.py:{TINY},num_steps=200,checkpoint_every=50"]
JOB = """#!/bin/bash
#SBATCH --ntasks=2 --requeue --open-mode=append --output={log}
srun {command}
[ $? = 75 ] && scontrol requeue $SLURM_JOB_ID
"""


def wait_until(condition, log, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def assert_preempted_and_resumed(workdir, log):
    """The run was stopped on its way, went on, and ended as one process of four devices does."""
    saved = int(log.read_text().split("stopped at step ")[1].split(",")[0])
    assert 0 < saved < 200
    run = runs.read_run(workdir)
    assert run.info["devices"].startswith("4 x")
    whole = runs.read_run(trained_here(workdir.parent / "whole", num_steps=200, num_devices=4))
    assert run.status == whole.status == "completed"
    assert [row["step"] for row in run.rows] == [row["step"] for row in whole.rows]
    losses = [[row["loss"] for row in of_run.rows] for of_run in (run, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


@contextlib.contextmanager
def mpirun(log, *command):
    """Two ranks of a command, whose output is added to the log; killed at the end."""
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with log.open("a") as output:
        process = subprocess.Popen(
            ["mpirun", "--oversubscribe", "-n", "2", *command],
            stdout=output,
            stderr=output,
            env={**os.environ, **as_root},
        )
        try:
            yield process
        finally:
            process.kill()


@weekly
@pytest.mark.usefixtures("slurm")
def test_two_tasks_of_srun_are_preempted_requeue_and_end_as_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    workdir, log, script = tmp_path / "run", tmp_path / "job.log", tmp_path / "job.sh"
    command = shlex.join([*LONG, f"--workdir={workdir}"])
    script.write_text(JOB.format(log=log, command=command))
    submit = ["sbatch", "--parsable", script]
    job = subprocess.run(submit, check=True, capture_output=True, text=True).stdout.strip()
    try:
        wait_until((workdir / "metrics.jsonl").exists, log)
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
        wait_until(lambda: "stopped at step" in log.read_text(), log)
        state = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
        wait_until(lambda: subprocess.check_output(state, text=True) == "PENDING\n", log)
        # By itself Slurm waits for two minutes, in which the first start's script ends. Slurm
        # would take that for the end of the second start.
        script = ["pgrep", "-f", rf"slurmstepd: \[{job}.batch\]"]
        wait_until(lambda: subprocess.run(script).returncode == 1, log)
        again = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
        wait_until(lambda: subprocess.run(again).returncode == 0, log)
        wait_until((workdir / "summary.json").exists, log)
    finally:
        subprocess.run(["scancel", job])
    assert_preempted_and_resumed(workdir, log)


@weekly
@pytest.mark.skipif(not shutil.which("mpirun"), reason="no mpirun here")
def test_two_ranks_of_mpirun_are_preempted_and_end_as_one_process(tmp_path, monkeypatch):
    workdir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    with mpirun(log, *LONG, f"--workdir={workdir}") as ranks:
        wait_until((workdir / "metrics.jsonl").exists, log)
        subprocess.run(["pkill", "-TERM", "-n", "-P", str(ranks.pid)], check=True)  # one of them
        assert ranks.wait(timeout=120) == STOPPED
    with mpirun(log, *LONG, f"--workdir={workdir}") as ranks:
        assert ranks.wait(timeout=300) == 0
    assert_preempted_and_resumed(workdir, log)
    assert "\x1b" not in log.read_text()  # no bar, though each rank has a terminal


@weekly
@pytest.mark.skipif(not shutil.which("mpirun"), reason="no mpirun here")
def test_mpirun_that_is_stopped_itself_lets_its_ranks_save(tmp_path, monkeypatch):
    workdir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    # It passes the signal on after so many seconds, and kills after as many more.
    monkeypatch.setenv("OMPI_MCA_odls_base_sigkill_timeout", "30")
    command = [*LONG, "--config.num_steps=100000", f"--workdir={workdir}"]
    with mpirun(log, *command) as ranks:
        wait_until((workdir / "metrics.jsonl").exists, log)
        ranks.terminate()
        assert ranks.wait(timeout=120) == 1
    assert "stopped at step" in log.read_text()
    assert runs.read_run(workdir).status == "partial"
