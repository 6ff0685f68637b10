"""Trains the runs of a sweep on this machine: as many at once as there are devices."""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from resnet_jax import errors
from resnet_jax.errors import InputError
from resnet_jax.runs import lockfile
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, StatusTable, finished_state

RESTARTS = 3
"""How often a run resumes in the same sweep after its process was killed, e.g. for memory."""

GRACE_SECONDS = 60
"""What a run may take to save once the sweep's time is up."""

_POLL_SECONDS = 0.2
_PROBE = """
import jax
version = jax.devices()[0].client.platform_version
print(jax.default_backend(), jax.local_device_count(), "rocm" in version)
"""


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one worker may use.

    Attributes:
      environment: variables that its process gets.
      cores: CPU cores that its process is pinned to; none for all.
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()


def slots(num_runs: int, workers: int | None = None) -> list[Slot]:
    """Shares this machine among workers.

    Each GPU is one worker's, or several workers' if there are more of them. CPU cores are shared
    out evenly; on a machine without GPUs what is left over goes to the first runs where each run
    has a slot of its own. A TPU host is one worker's.

    Args:
      num_runs: of the sweep. It counts the finished ones too, so that a sweep which is started
        again runs the others on as many cores as before, and gets the same bits.
      workers: how many; None for one a GPU, or one a CPU core.

    Raises:
      InputError: no device can be used, or not by so many workers.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: must be at least 1")
    platform, count, is_rocm = _probe()
    if platform == "cpu":
        return _cpu_slots(num_runs, workers)
    if platform == "gpu":
        return _gpu_slots(num_runs, count, workers or count, is_rocm)
    if workers not in (None, 1):
        raise InputError(f"workers={workers}: on a {platform} host one process has all chips")
    return [Slot()]


def enter_slot(num_runs: int, workers: int | None) -> int:
    """Makes this process use what a worker would, before JAX starts; returns how many they are."""
    first, *others = slots(num_runs, workers)
    os.environ.update(first.environment)
    if first.cores:
        os.sched_setaffinity(0, first.cores)
    return 1 + len(others)


def _cpu_slots(num_runs: int, workers: int | None) -> list[Slot]:
    if not hasattr(os, "sched_getaffinity"):
        return [Slot()]
    cores = sorted(os.sched_getaffinity(0))
    count = workers or min(num_runs, len(cores))
    if count > len(cores):
        return [Slot(cores=(cores[number % len(cores)],)) for number in range(count)]
    share, left_over = divmod(len(cores), count)
    if count != num_runs:
        left_over = 0  # A run that resumes in another slot must find as many cores there.
    free = iter(cores)
    sizes = [share + (number < left_over) for number in range(count)]
    return [Slot(cores=tuple(itertools.islice(free, size))) for size in sizes]


def _gpu_slots(num_runs: int, count: int, workers: int, is_rocm: bool) -> list[Slot]:
    # AMD's runtime takes CUDA's variable where its own is not set.
    variables = ["HIP_VISIBLE_DEVICES"] * is_rocm + ["CUDA_VISIBLE_DEVICES"]
    visible = next(filter(None, map(os.environ.get, variables)), None)
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    environment = {}
    if workers > count:
        together = -(-workers // count)
        environment["XLA_CLIENT_MEM_FRACTION"] = f"{0.9 / together:.3f}"
        # Its former name: jaxlib refuses both at once, and takes an empty one for none.
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = ""
    # A stream decodes with a process for each core that its run may use.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = len(cores) // min(workers, num_runs)
    return [
        Slot(
            {**environment, variables[0]: names[number % count]},
            tuple(cores[number * share : (number + 1) * share]),
        )
        for number in range(workers)
    ]


def _probe() -> tuple[str, int, bool]:
    """JAX's platform, number of devices, and whether they are AMD's.

    Asked in another process: this one takes no device.
    """
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if probe.returncode:
        said = probe.stderr.strip().splitlines()
        reason = said[-1].partition(": ")[2] if said else _describe(probe.returncode)
        platforms = os.environ.get("JAX_PLATFORMS")
        asked = f" (JAX_PLATFORMS={platforms})" if platforms else ""
        raise InputError(f"JAX finds no device{asked}: {reason or 'no such device'}")
    platform, count, is_rocm = probe.stdout.splitlines()[-1].split()
    return platform, int(count), is_rocm == str(True)


class Worker(Protocol):
    """A run that has been started somewhere; as `subprocess.Popen`."""

    def poll(self) -> int | None:
        """The exit code of `experiments.train`, minus the signal that ended it, or None."""

    def terminate(self) -> None:
        """Asks the run to save and end."""

    def kill(self) -> None:
        """Ends the run at once."""


def start_process(run: PlannedRun, workdir: Path, slot: Slot) -> subprocess.Popen:
    """Starts a run in a child process, its output at the end of the folder's `log.txt`."""
    folder = workdir / run.name
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        # In a process group of its own: a terminal's Ctrl-C is for the sweep, which passes it on.
        return start_logged(run.command(workdir), slot, log, process_group=0)


def start_logged(
    arguments: Sequence[str], slot: Slot, log: IO[bytes], process_group: int | None = None
) -> subprocess.Popen:
    """Starts a Python in a slot that writes to `log`, and saves and ends if this process ends."""
    cores = ",".join(map(str, slot.cores))
    starter = ["-m", "resnet_jax.sweeps.die_with_parent", str(os.getpid()), cores]
    return subprocess.Popen(
        [sys.executable, *starter, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **slot.environment},
        process_group=process_group,
    )


class _Job(NamedTuple):
    run: PlannedRun
    worker: Worker
    slot: Slot


class LocalPool:
    """Runs that wait, runs at work and how runs ended.

    Args:
      workdir: the sweep's folder.
      planned: all runs of the sweep, in order.
      slots: one for each worker; where there are as many as runs, each run has its own.
      start: starts a run in a slot.
      table: is told what happens.

    Attributes:
      ended: how each run ended, or stopped.
    """

    def __init__(
        self,
        workdir: Path,
        planned: Sequence[PlannedRun],
        slots: Sequence[Slot],
        start: Callable[[PlannedRun, Path, Slot], Worker],
        table: StatusTable,
    ):
        self._workdir, self._start, self._table = workdir, start, table
        self._free = list(slots)
        # A run resumes in the slot in which it began: with other cores it would round otherwise.
        names = [run.name for run in planned]
        self._own = dict(zip(names, slots, strict=False)) if len(slots) >= len(names) else {}
        self._waiting: list[PlannedRun] = []
        self._at_work: list[_Job] = []
        self._deaths: collections.Counter[str] = collections.Counter()
        self._stopping = self._out_of_time = False
        self.ended: dict[str, State] = {}

    def work(
        self,
        left: Sequence[PlannedRun],
        asked_to_stop: Callable[[], bool],
        end: float = math.inf,
    ) -> None:
        """Works until every run has ended, or until those at work have stopped if asked to.

        A second Ctrl-C, which comes as `KeyboardInterrupt`, kills the runs at work.

        Args:
          left: the runs to be trained, in order.
          asked_to_stop: asked several times a second.
          end: instant of the monotonic clock at which they are to save and stop. Those that have
            not done so `GRACE_SECONDS` later are killed: a run that compiles hears nothing.
        """
        self._waiting = list(left)
        try:
            while self._at_work or (self._waiting and not self._stopping):
                now = time.monotonic()
                if not self._stopping and (asked_to_stop() or now >= end):
                    self._stopping = True
                    self._table.say(
                        "stopping: the runs at work are saving; Ctrl-C again kills them"
                    )
                    for job in self._at_work:
                        job.worker.terminate()
                self._collect()
                if not self._stopping:
                    self._start_free()
                if self._at_work and not self._out_of_time and now >= end + GRACE_SECONDS:
                    self._out_of_time = True
                    names = ", ".join(job.run.name for job in self._at_work)
                    self._table.say(f"killed, not saved within {GRACE_SECONDS} s: {names}")
                    for job in self._at_work:
                        job.worker.kill()
                self._table.refresh()
                time.sleep(_POLL_SECONDS)
        finally:
            for job in self._at_work:
                job.worker.kill()

    def _start_free(self) -> None:
        for run in list(self._waiting):
            if not (self._own or self._free):
                return
            folder = self._workdir / run.name
            # A process that a killed sweep left behind is saving there: it will be done soon.
            if lockfile.is_claimed(folder):
                continue
            self._waiting.remove(run)
            slot = self._own[run.name] if self._own else self._free.pop(0)
            # So that what is found there afterwards is of this start.
            (folder / "error.txt").unlink(missing_ok=True)
            worker = self._start(run, self._workdir, slot)
            self._table.started(run)
            self._at_work.append(_Job(run, worker, slot))

    def _collect(self) -> None:
        for job in list(self._at_work):
            code = job.worker.poll()
            if code is not None:
                self._at_work.remove(job)
                self._free.insert(0, job.slot)
                self._settle(job.run, code)

    def _settle(self, run: PlannedRun, code: int) -> None:
        folder = self._workdir / run.name
        killed = code < 0 or code == errors.STOPPED or self._out_of_time
        if code == 0 and (state := finished_state(folder)):
            self._end(run, state, "")
        elif killed and self._stopping:
            self._end(run, State.STOPPED, "")
        elif killed and self._deaths[run.name] < RESTARTS:
            self._deaths[run.name] += 1
            self._waiting.insert(0, run)
            self._table.waits(run, f"{_describe(code)}; resumes from its last checkpoint")
        elif code == errors.WRONG_INPUT and lockfile.is_claimed(folder):
            self._waiting.append(run)
            self._table.waits(run, "another process is training there; waits for it")
        else:
            reason = _describe(code) if killed else _last_line(folder, code)
            self._end(run, State.FAILED, f"{reason} ({folder / 'log.txt'})")

    def _end(self, run: PlannedRun, state: State, message: str) -> None:
        self.ended[run.name] = state
        self._table.ended(run, state, message)


def _describe(code: int) -> str:
    if code == errors.STOPPED:
        return "stopped by someone else"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _last_line(folder: Path, code: int) -> str:
    """What the run said last: the end of its traceback, or of its log."""
    error = folder / "error.txt"
    source = error if error.exists() else folder / "log.txt"
    lines = source.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {code}"
