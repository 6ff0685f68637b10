"""What a sweep would run, how large the networks are and how long it may take."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import tensorflow_datasets as tfds
from rich.console import Group
from rich.table import Table
from rich.text import Text

from resnet_jax import runs
from resnet_jax.data import datasets, raw_readers
from resnet_jax.models import counting, zoo
from resnet_jax.sweeps import plan
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, clock, finished_state, last_checkpoint
from resnet_jax.training import trainer

CALLS = 3  # that are measured, after the first, which compiles


@dataclasses.dataclass(frozen=True)
class Reference:
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

    def seconds(self, run: PlannedRun, multiply_adds: int) -> float:
        """Time of another network: training by its multiply-adds, compilation by its depth."""
        images = run.config.num_steps * run.config.batch_size
        depth = run.config.architecture.depth
        return (
            self.start_seconds * depth / self.depth
            + images * self.image_seconds * multiply_adds / self.multiply_adds
        )


def setup_options(planned: Sequence[PlannedRun]) -> dict[str, bool]:
    """How JAX is to be set up for these runs, see `runtime.setup.prepare`."""
    configs = [run.config for run in planned]
    return {
        "deterministic": any(config.deterministic for config in configs),
        "onednn": any(config.onednn for config in configs),
    }


def describe(planned: Sequence[PlannedRun], workdir: Path, num_workers: int) -> Group:
    """A line a run and the time of the whole, for Rich to print; writes nothing.

    JAX must be set up as in a worker: if no run is finished, a few steps are timed here.
    """
    counts = count(planned)
    seconds, source = _seconds(planned, workdir, counts)
    table = Table("run", "state", box=None, pad_edge=False)
    for column in ("parameters", "multiply-adds", "steps", "time"):
        table.add_column(column, justify="right")
    for run in planned:
        folder = workdir / run.name
        state = finished_state(folder) or _unfinished(folder)
        left = clock(seconds[run.name]) if run.name in seconds else "–"
        sizes = map("{:,}".format, (*counts[plan.network_of(run)], run.config.num_steps))
        table.add_row(run.name, state, *sizes, left)
    if not seconds:
        return Group(table)
    whole = max(sum(seconds.values()) / num_workers, *seconds.values())
    workers = f"{num_workers} worker{'s' * (num_workers > 1)}"
    left = f"{len(seconds)} of {len(planned)} runs to do: about {clock(whole)} with {workers}"
    return Group(table, Text(left), Text(f"(from {source})"))


def count(planned: Sequence[PlannedRun]) -> dict[str, counting.Count]:
    """Parameters and multiply-adds of each run's network by `plan.network_of`, counted once."""
    counts: dict[str, counting.Count] = {}
    known: dict[str, counting.Count] = {}
    for run in plan.one_of_each_network(planned):
        shape, num_classes = data_shape(run)
        axes = run.config.model_overrides
        key = repr((run.config.model.name, axes, shape, num_classes))
        if key not in known:
            network = zoo.create(run.config.model.name, num_classes=num_classes, **axes)
            known[key] = counting.count(network, shape)
        counts[plan.network_of(run)] = known[key]
    return counts


def data_shape(run: PlannedRun) -> tuple[tuple[int, int, int], int]:
    """Image shape and number of classes, without downloading anything where TFDS knows them."""
    dataset = run.config.dataset
    if run.config.streaming:
        opened = datasets.open_records(dataset.name, dataset.train, dataset.data_dir)
        return (dataset.image_size, dataset.image_size, 3), len(opened.class_names)
    if dataset.name in raw_readers.NUM_EXAMPLES:
        features = tfds.builder(dataset.name).info.features
        return features["image"].shape, features["label"].num_classes
    examples = datasets.load(
        dataset.name, dataset.train, data_dir=dataset.data_dir, image_size=dataset.image_size
    )
    return examples.images.shape[1:], len(examples.class_names)


def measure(run: PlannedRun, multiply_adds: int) -> Reference:
    """Trains a run's network for a few steps on noise, on the devices of a run here."""
    began = time.perf_counter()
    config = run.config
    if config.streaming:  # An image of that size takes about as long in a smaller batch.
        group, devices = config.bn_group_size, trainer.make_mesh(config).size
        batch_size = min(config.part_size, group * devices)
        config = config.replace(batch_size=batch_size, grad_accum_steps=1)
    trained = trainer.with_random_data(config, *data_shape(run), num_examples=config.batch_size)
    data, run_steps = trained.splits["train"], trained.make_run_steps()
    steps = trained.intervals().steps_per_call
    state = jax.block_until_ready(run_steps(trained.initial_state(), data, 0, steps))
    start_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for number in range(1, CALLS + 1):
        state = run_steps(state, data, number * steps, (number + 1) * steps)
    jax.block_until_ready(state)
    steps *= CALLS
    return Reference(
        multiply_adds=multiply_adds,
        depth=config.architecture.depth,
        start_seconds=start_seconds,
        image_seconds=(time.perf_counter() - began) / (steps * config.batch_size),
        source=f"{steps} steps of {config.model.name} made here, by multiply-adds, and its "
        "compilation, by layers; without evaluation",
    )


def _seconds(
    planned: Sequence[PlannedRun], workdir: Path, counts: dict[str, counting.Count]
) -> tuple[dict[str, float], str]:
    """Time of each unfinished run, and where it is known from."""
    left = [run for run in planned if not finished_state(workdir / run.name)]
    if not left:
        return {}, ""
    sizes = {run.name: counts[plan.network_of(run)].multiply_adds for run in left}
    references = _finished_references(planned, workdir)
    if not references:
        smallest = min(left, key=lambda run: sizes[run.name])
        references = [measure(smallest, sizes[smallest.name])]
    seconds = {}
    for run in left:
        nearest = min(references, key=lambda known: abs(known.multiply_adds - sizes[run.name]))
        part = 1 - last_checkpoint(workdir / run.name) / run.config.num_steps
        seconds[run.name] = part * nearest.seconds(run, sizes[run.name])
    return seconds, references[0].source


def _finished_references(planned: Sequence[PlannedRun], workdir: Path) -> list[Reference]:
    """Networks of which the workdir has a completed run; their time includes evaluation."""
    found = []
    for run in planned:
        summary = runs.read_run(workdir / run.name).summary or {}
        if summary.get("status") == "completed":
            images = run.config.num_steps * run.config.batch_size
            found.append(
                Reference(
                    multiply_adds=summary["multiply_adds"],
                    depth=run.config.architecture.depth,
                    start_seconds=0.0,
                    image_seconds=summary["wall_seconds"] / images,
                    source="finished runs in this folder, by multiply-adds; all included",
                )
            )
    return found


def _unfinished(folder: Path) -> str:
    step = last_checkpoint(folder)
    if (folder / "error.txt").exists():
        return State.FAILED
    return f"at step {step}" if step else State.WAITING
