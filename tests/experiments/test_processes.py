"""Several real processes train one run as one does, stop together, and refuse together."""

import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import arguments, digits
from experiments import command, train
from experiments.experiment import build, load_config
from resnet_jax import runs
from resnet_jax.training.checkpoints import Checkpoints

TINY = (
    "resnet-8,batch_size=16,num_steps=12,log_every=4,evaluate_every=6,checkpoint_every=6,"
    "model.width=4,model.group_size=4,dataset.train=train[:200],dataset.test=test[:50]"
)


class Processes:
    """Two processes of `experiments.train`, two CPU devices each."""

    def __init__(self, workdirs, *flags, last=()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "experiments.train", f"--workdir={workdir}"]
                + [f"--config=configs/digits.py:{TINY}", *flags, *(last if number else ())]
                + [f"--coordinator={address}", "--num_processes=2", f"--process_id={number}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONUNBUFFERED": "1"},
            )
            for number, workdir in enumerate(workdirs)
        ]

    def wait(self):
        """(exit code, standard output, error lines) of each."""
        ends = []
        for process in self.processes:
            output, errors = process.communicate(timeout=300)
            wrong = [line for line in errors.splitlines() if line.startswith("error:")]
            lines = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
            ends.append((process.returncode, lines, wrong))
        return ends


def trained_here(workdir, **fields):
    assert train.train(arguments.update(digits.get_config(TINY), fields), workdir) == 0
    return workdir


def final_state(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(build(load_config(workdir)).state_template())


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
def one_device(tmp_path_factory):
    return trained_here(tmp_path_factory.mktemp("one") / "run", num_devices=1)


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    return trained_here(tmp_path_factory.mktemp("four") / "run", num_devices=4)


@pytest.mark.parametrize("engine", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_two_processes_train_as_one_does(engine, one_device, four_devices, tmp_path):
    processes = Processes([tmp_path, tmp_path], f"--config.parallel={engine}")
    (code, printed, _), (other_code, other_printed, _) = processes.wait()
    assert (code, other_code) == (0, 0)
    assert "resnet-8: training error" in printed[-1]
    assert other_printed == []  # One writes and prints.
    assert runs.read_run(tmp_path).info["devices"].startswith("4 x")
    for path in (one_device, four_devices):
        assert_same_training(tmp_path, path, rtol=1e-4, atol=1e-5)
