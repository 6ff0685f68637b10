"""Trains, submits or prints the runs of a sweep."""

import functools
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from resnet_jax.errors import InputError, check_choice
from resnet_jax.runs import lockfile, write_json
from resnet_jax.runtime.multihost import StopSignals
from resnet_jax.sweeps import local_pool, plan, slurm
from resnet_jax.sweeps.grid import Overrides, Sweep
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, StatusTable, finished_state

EXECUTORS = ("local", "slurm", "submitit-local", "print")
_WAITING_EXECUTORS = ("local", "submitit-local")


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
    note: Callable[[str], None] = print,
) -> dict[str, State] | None:
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
      note: gets the lines of what is not waited for: the runs' commands or jobs.

    Returns:
      How each run ended, by name, less those that were not begun; None if they are not waited for.

    Raises:
      InputError: the runs cannot be trained so, or another sweep is at work in the folder. Nothing
        is written then.
    """
    plan.check(sweep, planned, workdir, command_line)
    start: Callable[..., local_pool.Worker] = local_pool.start_process
    if executor in ("slurm", "submitit-local"):
        jobs = slurm.make_executor(executor.removeprefix("submitit-"), workdir, settings)
        start = functools.partial(slurm.SubmititWorker, jobs)
    elif settings:
        raise InputError(f"submitit={settings[0]!r}: executor={executor!r} makes no such jobs")
    states = {run.name: finished_state(workdir / run.name) for run in planned}
    finished = {name: state for name, state in states.items() if state}
    left = [run for run in planned if run.name not in finished]
    here = left and executor in _WAITING_EXECUTORS
    slots = local_pool.slots(len(planned), workers) if here else []
    report = shlex.join(["python", "-m", "experiments.report", f"--workdir={workdir}"])
    later = f"when they have finished: {report}"
    with lockfile.claim(workdir):
        manifest = plan.manifest(sweep, planned, workdir, command_line)
        write_json(workdir / plan.MANIFEST, manifest)
        if executor == "print":
            lines = [shlex.join(["python", *run.command(workdir)]) for run in left]
            note("\n".join([*lines, f"# {later}"]))
            return None
        if executor == "slurm":
            note("\n".join([*slurm.submit(jobs, left, workdir), later]))
            return None
        with StatusTable(workdir, planned, finished) as table, StopSignals() as stop:
            if finished:
                table.say(f"{len(finished)} of {len(planned)} runs are finished already")
            pool = local_pool.LocalPool(workdir, planned, slots, start, table)
            try:
                pool.work(left, stop.asked, end)
            except KeyboardInterrupt:
                table.say("killed the runs at work")
    return {**finished, **pool.ended}
