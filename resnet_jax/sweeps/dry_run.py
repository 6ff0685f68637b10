"""What a sweep would run, how large the nets are and how long it may take."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from resnet_jax.sweeps import devices, estimates, plan
from resnet_jax.sweeps.local_pool import finished_state
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.progress import State, last_checkpoint
from resnet_jax.sweeps.status import clock

_WIDTH = 160  # characters, where there is no terminal to ask


def show(planned: Sequence[PlannedRun], workdir: Path, workers: int | None) -> None:
    """Prints a line a run and the time of the whole; writes nothing."""
    slots = devices.slots(len(planned), workers)
    # Before JAX starts, so that it sees what a worker would.
    os.environ.update(slots[0].environment)
    if slots[0].cores:
        os.sched_setaffinity(0, slots[0].cores)
    counts = estimates.count(planned)
    table = Table("run", "state", box=None, pad_edge=False)
    for column in ("parameters", "multiply-adds", "steps", "time"):
        table.add_column(column, justify="right")
    seconds, source = _seconds(planned, workdir, counts)
    for run in planned:
        num_params, multiply_adds = counts[plan.net(run)]
        state = finished_state(workdir / run.name) or _unfinished(workdir / run.name)
        left = clock(seconds[run.name]) if run.name in seconds else "–"
        sizes = f"{num_params:,}", f"{multiply_adds:,}", f"{run.config.num_steps:,}"
        table.add_row(run.name, state, *sizes, left)
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
    if seconds:
        whole = max(sum(seconds.values()) / len(slots), *seconds.values())
        workers = f"{len(slots)} worker{'s' * (len(slots) > 1)}"
        print(f"{len(seconds)} of {len(planned)} runs to do: about {clock(whole)} with {workers}")
        print(f"(from {source})")


def _seconds(
    planned: Sequence[PlannedRun], workdir: Path, counts: dict[str, tuple[int, int]]
) -> tuple[dict[str, float], str]:
    """Time of each unfinished run, and where it is known from."""
    left = [run for run in planned if not finished_state(workdir / run.name)]
    if not left:
        return {}, ""
    sizes = {run.name: counts[plan.net(run)][1] for run in left}
    references = estimates.finished_references(planned, workdir)
    if not references:
        from resnet_jax.sweeps.measure import measure

        smallest = min(left, key=lambda run: sizes[run.name])
        references = [measure(smallest, sizes[smallest.name])]
    seconds = {}
    for run in left:
        nearest = min(references, key=lambda known: abs(known.multiply_adds - sizes[run.name]))
        part = 1 - last_checkpoint(workdir / run.name) / run.config.num_steps
        seconds[run.name] = part * nearest.seconds(run, sizes[run.name])
    return seconds, references[0].source


def _unfinished(folder: Path) -> str:
    step = last_checkpoint(folder)
    if (folder / "error.txt").exists():
        return State.FAILED
    return f"at step {step}" if step else State.WAITING
