"""Trains all runs of a sweep, and writes the report: what was found, the figure and the tables.

    python -m experiments.sweep --config=configs/sweeps/digits.py --workdir=runs/degradation

Started again it goes on: finished runs are left alone, others continue from their last checkpoint,
and failed ones are tried once more. Each run is an ordinary `experiments.train` run in
WORKDIR/<name of the run>/, what it prints in the `log.txt` there.

    --dry_run                  only tells what would be run, how large the nets are and how long
                               it may take
    --filter='plain|seed0'     only runs whose name matches
    --seeds=2 --num_steps=500  fewer seeds, shorter runs. These also log, evaluate and save as
                               often as fits: 50, 10 and 10 times at least
    --override=dataset.data_dir=DIR   sets a field in all runs
    --max_minutes=50           saves and stops after 50 minutes. A run that has not saved a minute
                               later, because it compiles or is deep in a long dispatch, is
                               killed. The folder may be copied to another machine, where the same
                               command goes on
    --executor=local           as many runs at once as there are GPUs or CPU cores; or --workers=N
    --executor=slurm           submits a job array through submitit and does not wait; settings of
                               the jobs as in --submitit=slurm_partition=gpu
                               --submitit=gpus_per_node=1 --submitit=timeout_min=240
    --executor=submitit-local  the same jobs as processes of this machine
    --executor=print           prints a shell line for each run that is not finished

Exit codes: 0 all runs finished (or submitted), 1 some failed, 2 wrong input, 75 stopped by SIGTERM,
Ctrl-C or --max_minutes with everything saved: the same command goes on. A second Ctrl-C kills the
runs; runs that are killed make the steps since their last checkpoint again.
"""

import functools
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.errors import STOPPED, InputError, check_choice
from resnet_jax.runs import arguments, lockfile
from resnet_jax.runtime.signals import StopSignals
from resnet_jax.sweeps import devices, dry_run, grid, manifest, plan, slurm, status
from resnet_jax.sweeps.local_pool import Crew, finished_state
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.progress import State
from resnet_jax.sweeps.workers import LocalWorker, Worker, shell_line

_EXECUTORS = ("local", "slurm", "submitit-local", "print")
_WAITING_EXECUTORS = ("local", "submitit-local")

_CONFIG = flags.DEFINE_string("config", None, "the sweep's file", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "the sweep's folder", required=True)
_FILTER = flags.DEFINE_string("filter", None, "regular expression: runs with such a name only")
_SEEDS = flags.DEFINE_integer("seeds", None, "seeds of each net; else what the sweep says")
_NUM_STEPS = flags.DEFINE_integer("num_steps", None, "of each run; else what the config says")
_OVERRIDE = flags.DEFINE_multi_string("override", [], "field=value for all runs")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "tell what would be run, and run nothing")
_EXECUTOR = flags.DEFINE_string("executor", "local", ", ".join(_EXECUTORS))
_WORKERS = flags.DEFINE_integer("workers", None, "runs at once; else one a GPU or CPU core", 1)
_MAX_MINUTES = flags.DEFINE_float("max_minutes", None, "after which it saves and stops")
_SUBMITIT = flags.DEFINE_multi_string("submitit", [], "key=value, a setting of submitit's jobs")


def main(argv: list[str]) -> int:
    """Runs, submits or prints the sweep's runs; returns the exit code."""
    del argv
    began = time.monotonic()
    check_choice("executor", _EXECUTOR.value, _EXECUTORS)
    end = began + 60 * _allowed_minutes()
    workdir = Path(_WORKDIR.value)
    sweep = grid.load(_CONFIG.value, _SEEDS.value)
    extra = _extra_overrides()
    planned = plan.plan(sweep, pattern=_FILTER.value, num_steps=_NUM_STEPS.value, extra=extra)
    changed = extra if _NUM_STEPS.value is None else {**extra, "num_steps": _NUM_STEPS.value}
    if _DRY_RUN.value:
        plan.check(planned, workdir)
        manifest.check(workdir, sweep, planned, changed)
        dry_run.show(planned, workdir, _WORKERS.value)
        return 0
    with lockfile.claim(workdir):
        plan.check(planned, workdir)
        manifest.write(workdir, sweep, planned, changed)
        left = [run for run in planned if not finished_state(workdir / run.name)]
        if _EXECUTOR.value == "print":
            _print(left, workdir)
        elif _EXECUTOR.value == "slurm":
            _submit(left, workdir)
        else:
            return _work(planned, left, workdir, end)
    return 0


def _allowed_minutes() -> float:
    minutes = _MAX_MINUTES.value
    if minutes is None:
        return math.inf
    if not minutes > 0:
        raise InputError(f"max_minutes={minutes:g}: must be above 0")
    if _EXECUTOR.value not in _WAITING_EXECUTORS:
        raise InputError(
            f"max_minutes={minutes:g}: executor={_EXECUTOR.value!r} does not wait for the runs; "
            "use it with local or submitit-local"
        )
    return minutes


def _extra_overrides() -> grid.Overrides:
    extra = {}
    for text in _OVERRIDE.value:
        name, fields = arguments.split(text, "")
        if name or not fields:
            raise InputError(f"override={text!r}: expected field=value")
        extra |= fields
    return extra


def _work(
    planned: Sequence[PlannedRun], left: Sequence[PlannedRun], workdir: Path, end: float
) -> int:
    """Runs what is left on this machine, and writes the report; returns the exit code.

    At the instant `end` of the monotonic clock it saves and stops.
    """
    finished = {run.name: finished_state(workdir / run.name) for run in planned if run not in left}
    if finished:
        print(f"{len(finished)} of {len(planned)} runs are finished already")
    slots = devices.slots(len(planned), _WORKERS.value) if left else []
    with status.make(workdir, planned, finished) as shown, StopSignals() as stop:
        crew = Crew(workdir, slots, _starter(workdir), shown)
        try:
            crew.work(left, stop.asked, end)
        except KeyboardInterrupt:
            shown.say("killed the runs at work")
    if len(crew.finished) < len(left):
        print("stopped; the same command goes on")
        return STOPPED
    # Only now, because drawing loads Matplotlib.
    from resnet_jax.reporting import write_report

    written = write_report([workdir], workdir / "report")
    print(written.index)
    print(written.finding)
    failed = [name for name, state in crew.ended.items() if state is State.FAILED]
    if failed:
        print(f"{len(failed)} of {len(planned)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _starter(workdir: Path) -> Callable[[PlannedRun, Path, devices.Slot], Worker]:
    if _EXECUTOR.value == "local":
        return LocalWorker
    executor = slurm.make_executor("local", workdir, _SUBMITIT.value)
    return functools.partial(slurm.SubmititWorker, executor)


def _submit(left: Sequence[PlannedRun], workdir: Path) -> None:
    ids = slurm.submit_to_slurm(left, workdir, _SUBMITIT.value)
    for name, job in ids.items():
        print(f"{name}: job {job}")
    queued = len(left) - len(ids)
    print(f"submitted {len(ids)} runs" + (f"; {queued} are in the queue already" if queued else ""))
    print(f"when they have finished: {_report_command(workdir)}")


def _print(left: Sequence[PlannedRun], workdir: Path) -> None:
    for run in left:
        print(shell_line(run, workdir))
    print(f"# when they have finished: {_report_command(workdir)}")


def _report_command(workdir: Path) -> str:
    return shlex.join(["python", "-m", "experiments.report", f"--workdir={workdir}"])


if __name__ == "__main__":
    command.run(main)
