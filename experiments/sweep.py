"""Trains all runs of a sweep, and writes the report: what was found, the figure and the tables.

    python -m experiments.sweep --config=configs/sweeps/digits.py --workdir=runs/degradation

Rerun the command to resume: finished runs are left alone, others continue from their last
checkpoint, and failed ones are tried once more. Each run is an ordinary `experiments.train` run in
WORKDIR/<name of the run>/, what it prints in the `log.txt` there.

    --dry_run                  only tells what would be run, how large the networks are and how
                               long it may take
    --filter='plain|seed0'     only runs whose name matches
    --seeds=2 --num_steps=500  fewer seeds, shorter runs. These also log, evaluate and save as
                               often as fits: 50, 10 and 10 times at least
    --override=dataset.data_dir=DIR   sets a field in all runs; not one that they vary
    --max_minutes=50           saves and stops after 50 minutes, and kills runs that fail to save
                               within one more. The folder may be copied to another machine, to
                               resume there
    --executor=local           as many runs at once as there are GPUs or CPU cores; or --workers=N
    --executor=slurm           submits a job array through submitit and does not wait; settings of
                               the jobs as in --submitit=slurm_partition=gpu
                               --submitit=gpus_per_node=1 --submitit=timeout_min=240
    --executor=submitit-local  the same jobs as processes of this machine
    --executor=print           prints a shell line for each run that is not finished

Exit codes: 0 all runs finished (or submitted), 1 some failed, 2 wrong input, 75 stopped by SIGTERM,
Ctrl-C or --max_minutes with everything saved. A second Ctrl-C kills the runs; killed runs repeat
the steps since their last checkpoint.
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from experiments import command
from resnet_jax.errors import STOPPED
from resnet_jax.sweeps import grid, local_pool, plan, run
from resnet_jax.sweeps.status import State

_CONFIG = flags.DEFINE_string("config", None, "the sweep's file", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "the sweep's folder", required=True)
_FILTER = flags.DEFINE_string("filter", None, "regular expression: runs with such a name only")
_SEEDS = flags.DEFINE_integer("seeds", None, "seeds of each network; else what the sweep says")
_NUM_STEPS = flags.DEFINE_integer("num_steps", None, "of each run; else what the config says")
_OVERRIDE = flags.DEFINE_multi_string("override", [], "field=value for all runs")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "tell what would be run, and run nothing")
_EXECUTOR = flags.DEFINE_string("executor", "local", ", ".join(run.EXECUTORS))
_WORKERS = flags.DEFINE_integer("workers", None, "runs at once; else one a GPU or CPU core", 1)
_MAX_MINUTES = flags.DEFINE_float("max_minutes", None, "after which it saves and stops")
_SUBMITIT = flags.DEFINE_multi_string("submitit", [], "key=value, a setting of submitit's jobs")


def main() -> int:
    """Runs, submits or prints the sweep's runs; returns the exit code."""
    end, workdir = run.deadline(_EXECUTOR.value, _MAX_MINUTES.value), Path(_WORKDIR.value)
    sweep, extra = grid.load(_CONFIG.value, _SEEDS.value), plan.parse_overrides(_OVERRIDE.value)
    planned = plan.plan(sweep, pattern=_FILTER.value, num_steps=_NUM_STEPS.value, extra=extra)
    changed = extra if _NUM_STEPS.value is None else {**extra, "num_steps": _NUM_STEPS.value}
    if _DRY_RUN.value:
        return _dry_run(sweep, planned, workdir, changed)
    ended = run.run(
        sweep, planned, workdir, changed, executor=_EXECUTOR.value, workers=_WORKERS.value,
        settings=_SUBMITIT.value, end=end,
    )  # fmt: skip
    if ended is None:
        return 0
    if len(ended) < len(planned) or State.STOPPED in ended.values():
        print("stopped; rerun the command to resume")
        return STOPPED
    from resnet_jax.reporting import write_report  # Only now, because drawing loads Matplotlib.

    written = write_report([workdir], workdir / "report")
    print(written.index)
    print(written.finding)
    failed = [name for name, state in ended.items() if state is State.FAILED]
    if failed:
        print(f"{len(failed)} of {len(planned)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _dry_run(sweep, planned, workdir, changed) -> int:
    plan.check(sweep, planned, workdir, changed)
    num_workers = local_pool.enter_slot(len(planned), _WORKERS.value)
    # Only now, because loading JAX takes a second or two.
    from resnet_jax.runtime import setup
    from resnet_jax.sweeps import estimate

    setup.prepare_for(run.config for run in planned)
    # A terminal wraps longer lines, Rich would cut them.
    console = Console(width=1000, force_terminal=sys.stdout.isatty(), emoji=False)
    console.print(estimate.describe(planned, workdir, num_workers))
    return 0


if __name__ == "__main__":
    command.run(main)
