"""What a sweep would run, how large the networks are and how long it may take."""

import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from resnet_jax import runs
from resnet_jax.data import datasets
from resnet_jax.models import counting
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import Recipe
from resnet_jax.runs.recipe import Dataset
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, clock, finished_state, last_checkpoint
from resnet_jax.training import speed, trainer

CALLS = 3  # that are measured, after the first, which compiles


class Reference(NamedTuple):
    """A network whose time is known.

    Attributes:
      multiply_adds: of one image, forward.
      depth: in layers.
      start_seconds: initialisation and compilation.
      image_seconds: of training, for one image.
      source: where this is known from.
    """

    multiply_adds: int
    depth: int
    start_seconds: float
    image_seconds: float
    source: str

    def seconds(self, config: Recipe, multiply_adds: int) -> float:
        """Time of another network: training by its multiply-adds, compilation by its depth."""
        images = config.num_steps * config.batch_size
        return (
            self.start_seconds * config.architecture.depth / self.depth
            + images * self.image_seconds * multiply_adds / self.multiply_adds
        )


def describe(planned: Sequence[PlannedRun], workdir: Path, num_workers: int) -> Group:
    """A line a run and the time of the whole, for Rich to print; writes nothing.

    JAX must be set up as in a worker: if no run is finished, a few steps are timed here.
    """
    counts = {run.name: count(run.config) for run in planned}
    states = {run.name: finished_state(workdir / run.name) for run in planned}
    left = [run for run in planned if not states[run.name]]
    references = [reference for run in planned for reference in _finished(run, workdir)]
    if left and not references:
        smallest = min(left, key=lambda run: counts[run.name].multiply_adds)
        references = [measure(smallest.config, counts[smallest.name].multiply_adds)]
    seconds = {}
    for run in left:
        adds = counts[run.name].multiply_adds
        nearest = min(references, key=lambda known: abs(known.multiply_adds - adds))
        part = 1 - last_checkpoint(workdir / run.name) / run.config.num_steps
        seconds[run.name] = part * nearest.seconds(run.config, adds)
    table = Table("run", "state", box=None, pad_edge=False)
    for column in ("parameters", "multiply-adds", "steps", "time"):
        table.add_column(column, justify="right")
    for run in planned:
        state = states[run.name] or _unfinished(workdir / run.name)
        sizes = map("{:,}".format, (*counts[run.name], run.config.num_steps))
        table.add_row(
            run.name, state, *sizes, clock(seconds[run.name]) if run.name in seconds else "–"
        )
    if not left:
        return Group(table)
    whole = max(sum(seconds.values()) / num_workers, *seconds.values())
    workers = f"{num_workers} worker{'s' * (num_workers > 1)}"
    todo = f"{len(left)} of {len(planned)} runs to do: about {clock(whole)} with {workers}"
    return Group(table, Text(todo), Text(f"(from {references[0].source})"))


def count(config: Recipe) -> counting.Count:
    """Parameters and multiply-adds of a run's network."""
    return _count(config.architecture, *data_shape(config.dataset, config.streaming is not None))


@functools.cache
def _count(architecture: Architecture, shape: tuple, num_classes: int) -> counting.Count:
    return counting.count(ResNet(architecture, num_classes=num_classes), shape)


@functools.cache
def data_shape(dataset: Dataset, streaming: bool) -> tuple[tuple[int, ...], int]:
    """Image shape and number of classes, without downloading anything or reading an image."""
    side = dataset.image_size
    fitted = None if streaming else side
    info = datasets.describe(dataset.name, data_dir=dataset.data_dir, image_size=fitted)
    shape = (side, side, 3) if streaming and side else info.image_shape
    assert shape is not None  # `check_dataset` refuses images of several sizes.
    return shape, len(info.class_names)


def measure(config: Recipe, multiply_adds: int) -> Reference:
    """Trains a run's network for a few steps on noise, on the devices of a run here."""
    if config.streaming:  # An image of that size takes about as long in a smaller batch.
        group, devices = config.bn_group_size, trainer.make_mesh(config).size
        batch_size = min(config.part_size, group * devices)
        config = config.replace(batch_size=batch_size, grad_accum_steps=1)
    shape, num_classes = data_shape(config.dataset, config.streaming is not None)
    timed = speed.TimedStep(config, shape, num_classes, config.batch_size)
    return Reference(
        multiply_adds=multiply_adds,
        depth=config.architecture.depth,
        start_seconds=sum(timed.start_seconds.values()),
        image_seconds=1 / statistics.median(speed.rates(timed.train, CALLS, seconds=0)),
        source=f"{CALLS * timed.steps} steps of {config.model.name} made here, by multiply-adds, "
        "and its compilation, by layers; without evaluation",
    )


def _finished(run: PlannedRun, workdir: Path) -> list[Reference]:
    """The network of a completed run; its time includes evaluation."""
    summary = runs.read_run(workdir / run.name).summary or {}
    if summary.get("status") != "completed":
        return []
    seconds = summary["wall_seconds"] / (run.config.num_steps * run.config.batch_size)
    source = "finished runs in this folder, by multiply-adds; all included"
    depth = run.config.architecture.depth
    return [Reference(summary["multiply_adds"], depth, 0.0, seconds, source)]


def _unfinished(folder: Path) -> str:
    step = last_checkpoint(folder)
    if (folder / "error.txt").exists():
        return State.FAILED
    return f"at step {step}" if step else State.WAITING
