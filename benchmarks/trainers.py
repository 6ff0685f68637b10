"""The processes that train one run together, and its states, watched and changed from outside."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from resnet_jax import runs
from resnet_jax.runs import load_recipe
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.trainer import build

REPOSITORY = Path(__file__).parents[1]
SAVE_TIMEOUT = 60
CONFIG = (
    "configs/digits.py:resnet-8,batch_size=16,num_steps={steps},log_every=1,evaluate_every=20,"
    f"checkpoint_every=4,save_timeout={SAVE_TIMEOUT},model.width=4,model.bn_group_size=4,"
    "dataset.train=train[:200],dataset.test=test[:50]"
)
TIMES = ("seconds", "images_per_second")


class Trainers:
    """`experiments.train` in several processes, on a folder that may have to be started often.

    Attributes:
      workdir: the run's folder.
      count: how many processes.
      codes: exit codes of the last start, by process.
    """

    def __init__(self, workdir: Path, logs: Path, *, processes: int, devices: int, steps: int):
        self.workdir, self.count = workdir, processes
        self._logs, self._devices, self._steps = logs, devices, steps
        self._processes: list[subprocess.Popen] = []
        self.codes: list[int | None] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Starts all processes, each as an argument of the command `wrapper`."""
        command = [*wrapper, sys.executable, "-m", "experiments.train"]
        command += [f"--config={CONFIG.format(steps=self._steps)}", f"--workdir={self.workdir}"]
        together = [f"--coordinator=localhost:{_free_port()}", f"--num_processes={self.count}"]
        on_cpu = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self._devices)}
        self._processes = []
        for number in range(self.count):
            flags = [*together, f"--process_id={number}"] if self.count > 1 else []
            with self._log(number).open("wb") as log:
                process = subprocess.Popen(
                    command + flags,
                    cwd=REPOSITORY,
                    env={**os.environ, **on_cpu, **environment},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Of the processes that have not ended."""
        return [process.pid for process in self._processes if process.poll() is None]

    def printed_steps(self) -> list[int]:
        """The steps of which this start has printed a row."""
        return [int(step) for step in re.findall(r"^step +(\d+)  train", self.told(), re.M)]

    def told(self, number: int = 0) -> str:
        """What a process has printed since its start."""
        return self._log(number).read_text(errors="replace")

    def signal(self, which: int, number: int) -> None:
        self._processes[which].send_signal(number)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.codes = [process.returncode for process in self._processes]

    def running(self) -> bool:
        """Whether none has ended."""
        return len(self.pids) == self.count

    def wait_for(self, rows: int, timeout: float) -> None:
        """Returns when this start has printed so many rows, or has ended.

        Raises:
          TimeoutError: it did neither.
        """
        if not _wait(lambda: not self.running() or len(self.printed_steps()) >= rows, timeout):
            raise TimeoutError(f"{rows} rows: {self.told()[-500:]}")

    def end(self, timeout: float, grace: float) -> None:
        """Waits until one process has ended, gives the others a grace period and kills them then.

        Raises:
          TimeoutError: none ended; they are killed.
        """
        ended = _wait(lambda: not self.running(), timeout)
        if ended:
            _wait(lambda: not self.pids, grace)
        self.kill()
        if not ended:
            raise TimeoutError(f"no process ended: {self.told()[-500:]}")

    def _log(self, number: int) -> Path:
        return self._logs / f"process-{number}.txt"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.workdir / "summary.json").exists()

    def rows(self) -> list[runs.Row]:
        """The log's whole lines, without times."""
        rows = runs.read_run(self.workdir).rows
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether the condition came to hold in time."""
    deadline = time.monotonic() + timeout
    while not (holds := condition()) and time.monotonic() <= deadline:
        time.sleep(0.02)
    return holds


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def poison(workdir: Path) -> int:
    """Makes the first parameter of the newest checkpoint NaN; returns that checkpoint's step."""
    template = build(load_recipe(workdir)).state_template()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(template)
    leaves, tree = jax.tree.flatten(state.params)
    leaves[0] = jax.device_put(jnp.full_like(leaves[0], jnp.nan), leaves[0].sharding)
    step = int(state.step)
    shutil.rmtree(workdir / "checkpoints" / str(step))
    with Checkpoints(workdir / "checkpoints", keep=100) as checkpoints:
        checkpoints.save(state.replace(params=jax.tree.unflatten(tree, leaves)))
    return step


def final_state(workdir: Path) -> dict[str, Any]:
    """The last state by names: parameters, batch statistics, momentum and all else."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return ocp.tree.to_flat_dict(checkpoints.restore(), sep=".")


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the values that are not the same bit for bit."""
    return [
        name
        for name in sorted({*a, *b})
        if np.asarray(a.get(name)).tobytes() != np.asarray(b.get(name)).tobytes()
    ]
