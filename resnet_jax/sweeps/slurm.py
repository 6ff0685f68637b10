"""Runs as jobs of `submitit`: on a Slurm cluster, or as local processes to try that out."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from resnet_jax import errors, runs
from resnet_jax.errors import InputError
from resnet_jax.sweeps.local_pool import Slot, start_logged
from resnet_jax.sweeps.plan import PlannedRun

DEFAULTS = {"timeout_min": 240, "slurm_signal_delay_s": 120}
"""A job that runs out of time saves, and goes back into the queue."""

MOST_TIMEOUTS = 1000


class TrainJob:
    """Trains one run within a job; what `submitit` pickles.

    When the job is preempted or out of time, `submitit` calls `checkpoint`, and queues what that
    returns.
    """

    def __init__(self, run: PlannedRun, workdir: Path, slot: Slot):
        self.arguments = run.command(workdir.absolute())
        self.log = workdir.absolute() / run.name / "log.txt"
        self.slot = slot
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Returns the run's exit code: 0, `errors.STOPPED` or of a signal; raises for others."""
        signal.signal(signal.SIGTERM, self._stop)
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = start_logged(self.arguments, self.slot, log)
            code = self._process.wait()
        if code > 0 and code != errors.STOPPED:
            raise RuntimeError(f"exit code {code}: see {self.log}")
        return code

    def checkpoint(self) -> Any:
        """Lets the run save, and asks for another job that resumes it."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        if self._process:
            # Not `wait`, whose lock the interrupted `__call__` holds.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self._process = None
        return DelayedSubmission(self)

    def _stop(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)


class SubmititWorker:
    """A run in a job of `submitit`'s local executor; a `local_pool.Worker`."""

    def __init__(self, executor: Any, run: PlannedRun, workdir: Path, slot: Slot):
        self._job = executor.submit(TrainJob(run, workdir, slot))
        self.kill = self._job.cancel

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        return self._job.result() if self._job.exception() is None else 1

    def terminate(self) -> None:
        # A local job's id is that of the process that controls it, which passes SIGTERM on.
        os.kill(int(self._job.job_id), signal.SIGTERM)


def make_executor(cluster: str, workdir: Path, settings: Sequence[str]) -> Any:
    """An executor of `submitit`, its files in the workdir's `submitit/`.

    Args:
      cluster: "slurm" or "local".
      workdir: the sweep's folder.
      settings: "key=value" of submitit's `AutoExecutor.update_parameters`, such as
        "slurm_partition=gpu", "gpus_per_node=1", "cpus_per_task=8" or "timeout_min=60".

    Raises:
      InputError: submitit is not installed, Slurm is not there, or a setting is wrong.
    """
    try:
        import submitit  # Optional.
    except ImportError as error:
        raise InputError(
            "executor: this one needs the package submitit; install it with: pip install submitit"
        ) from error
    parameters = {**DEFAULTS, "name": workdir.absolute().name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"submitit={setting!r}: expected key=value")
        parameters[key] = int(value) if value.lstrip("-").isdecimal() else value
    try:
        executor = submitit.AutoExecutor(
            workdir / "submitit", cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS
        )
        executor.update_parameters(**parameters)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"executor={cluster!r}: {error}") from error
    return executor


def submit(executor: Any, planned: Sequence[PlannedRun], workdir: Path) -> list[str]:
    """Submits runs to Slurm as one job array, less those that are in the queue already.

    Returns:
      A line for each run that was submitted now, with its job's id, and one on all.
    """
    record = workdir / "submitit" / "jobs.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    queued = _queued() & set(known.values())
    new = [run for run in planned if known.get(run.name) not in queued]
    ids: dict[str, str] = {}
    if new:
        with executor.batch():
            jobs = [executor.submit(TrainJob(run, workdir, Slot())) for run in new]
        ids = {run.name: job.job_id for run, job in zip(new, jobs, strict=True)}
        runs.write_json(record, {**known, **ids})
    there = len(planned) - len(new)
    already = f"; {there} are in the queue already" if there else ""
    lines = [f"{name}: job {job}" for name, job in ids.items()]
    return [*lines, f"submitted {len(ids)} runs{already}"]


def _queued() -> set[str]:
    """Ids of this user's jobs that wait or run; of arrays, one a task."""
    squeue = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    listing = subprocess.run(squeue, capture_output=True, text=True)
    if listing.returncode:
        raise InputError(f"{shlex.join(squeue)}: {listing.stderr.strip()}")
    return set(listing.stdout.split())
