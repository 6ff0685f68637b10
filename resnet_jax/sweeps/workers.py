"""One run in a process of its own."""

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Protocol

from resnet_jax.sweeps import tether
from resnet_jax.sweeps.devices import Slot
from resnet_jax.sweeps.plan import PlannedRun


class Worker(Protocol):
    """A run that has been started somewhere."""

    def poll(self) -> int | None:
        """The exit code of `experiments.train`, minus the signal that ended it, or None."""

    def stop(self) -> None:
        """Asks the run to save and end."""

    def kill(self) -> None:
        """Ends the run at once."""


class LocalWorker:
    """A run in a child process, its output at the end of the folder's `log.txt`."""

    def __init__(self, run: PlannedRun, workdir: Path, slot: Slot):
        folder = workdir / run.name
        folder.mkdir(exist_ok=True)
        with (folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                tether.command(train_arguments(run, workdir), slot.cores),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **slot.environment},
                process_group=0,  # A terminal's Ctrl-C is for the sweep, which passes it on.
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()


def train_arguments(run: PlannedRun, workdir: Path) -> list[str]:
    """What follows "python" in the command of a run."""
    return ["-m", "experiments.train", *run.arguments, f"--workdir={workdir / run.name}"]


def shell_line(run: PlannedRun, workdir: Path) -> str:
    """The command of a run, for a shell in this folder."""
    return shlex.join(["python", *train_arguments(run, workdir)])
