"""Trains, submits or prints the runs of a sweep."""

import dataclasses
import functools
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax import errors
from resnet_jax.errors import InputError, check_choice
from resnet_jax.runs import lockfile
from resnet_jax.runtime.signals import StopSignals
from resnet_jax.sweeps import local_pool, plan, slurm
from resnet_jax.sweeps.grid import Overrides, Sweep
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, StatusTable, finished_state

EXECUTORS = ("local", "slurm", "submitit-local", "print")
_WAITING_EXECUTORS = ("local", "submitit-local")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended here.

    Attributes:
      code: the command's exit code.
      all_ended: whether each run was trained to its end or failed: time for a report.
      failed: names of the runs that failed.
      lines: what the user is to read: the runs' commands or jobs, where they are not waited for.
    """

    code: int
    all_ended: bool = False
    failed: Sequence[str] = ()
    lines: Sequence[str] = ()


def deadline(executor: str, max_minutes: float | None) -> float:
    """The instant of the monotonic clock at which runs save and stop, so many minutes from now.

    Raises:
      InputError: there is no such executor, or no such time, or the executor does not wait.
    """
    check_choice("executor", executor, EXECUTORS)
    if max_minutes is None:
        return math.inf
    if not max_minutes > 0:
        raise InputError(f"max_minutes={max_minutes:g}: must be above 0")
    if executor not in _WAITING_EXECUTORS:
        raise InputError(
            f"max_minutes={max_minutes:g}: executor={executor!r} does not wait for the runs; "
            "use it with local or submitit-local"
        )
    return time.monotonic() + 60 * max_minutes


def check(
    sweep: Sweep, planned: Sequence[PlannedRun], workdir: Path, command_line: Overrides
) -> None:
    """Raises `InputError` if these runs cannot be trained in the folder; writes nothing."""
    plan.check(planned, workdir)
    plan.check_manifest(workdir, sweep, planned, command_line)


def run(
    sweep: Sweep,
    planned: Sequence[PlannedRun],
    workdir: Path,
    command_line: Overrides,
    *,
    executor: str = "local",
    workers: int | None = None,
    settings: Sequence[str] = (),
    end: float = math.inf,
) -> Outcome:
    """Trains, submits or prints the runs that are not finished, and tells how they are doing.

    Args:
      sweep: what is run.
      planned: its runs.
      workdir: the sweep's folder.
      command_line: what the command line changed in all runs.
      executor: a member of `EXECUTORS`.
      workers: runs at once; None for one a GPU or CPU core.
      settings: of submitit's jobs, see `slurm.make_executor`.
      end: see `deadline`.

    Raises:
      InputError: the runs cannot be trained so, or another sweep is at work in the folder. Nothing
        is written then.
    """
    check(sweep, planned, workdir, command_line)
    submitit = None
    if executor in ("slurm", "submitit-local"):
        submitit = slurm.make_executor(executor.removeprefix("submitit-"), workdir, settings)
    elif settings:
        raise InputError(f"submitit={settings[0]!r}: executor={executor!r} makes no such jobs")
    states = {run.name: finished_state(workdir / run.name) for run in planned}
    finished = {name: state for name, state in states.items() if state}
    left = [run for run in planned if run.name not in finished]
    here = left and executor in _WAITING_EXECUTORS
    slots = local_pool.slots(len(planned), workers) if here else []
    with lockfile.claim(workdir):
        plan.write_manifest(workdir, sweep, planned, command_line)
        if executor == "print":
            lines = [run.shell_line(workdir) for run in left]
            return Outcome(0, lines=[*lines, f"# {_report_later(workdir)}"])
        if executor == "slurm":
            return Outcome(0, lines=_submit(submitit, left, workdir))
        start = local_pool.start_process
        if submitit:
            start = functools.partial(slurm.SubmititWorker, submitit)
        with StatusTable(workdir, planned, finished) as table:
            if finished:
                table.say(f"{len(finished)} of {len(planned)} runs are finished already")
            pool = local_pool.LocalPool(workdir, planned, slots, start, table)
            return _work(pool, left, table, end)


def _work(
    pool: local_pool.LocalPool, left: Sequence[PlannedRun], table: StatusTable, end: float
) -> Outcome:
    with StopSignals() as stop:
        try:
            pool.work(left, stop.asked, end)
        except KeyboardInterrupt:
            table.say("killed the runs at work")
    if len(pool.finished) < len(left):
        return Outcome(errors.STOPPED)
    failed = [name for name, state in pool.ended.items() if state is State.FAILED]
    return Outcome(1 if failed else 0, all_ended=True, failed=failed)


def _submit(submitit: Any, left: Sequence[PlannedRun], workdir: Path) -> list[str]:
    ids = slurm.submit(submitit, left, workdir)
    queued = len(left) - len(ids)
    there = f"; {queued} are in the queue already" if queued else ""
    jobs = [f"{name}: job {job}" for name, job in ids.items()]
    return [*jobs, f"submitted {len(ids)} runs{there}", _report_later(workdir)]


def _report_later(workdir: Path) -> str:
    command = shlex.join(["python", "-m", "experiments.report", f"--workdir={workdir}"])
    return f"when they have finished: {command}"
