"""How long runs will take: scaled from a net whose time is known."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from resnet_jax import runs
from resnet_jax.sweeps import plan
from resnet_jax.sweeps.plan import PlannedRun


@dataclasses.dataclass(frozen=True)
class Reference:
    """A net whose time is known.

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
        """Time of another net: training by its multiply-adds, compilation by its depth."""
        images = run.config.num_steps * run.config.batch_size
        depth = run.config.architecture.depth
        return (
            self.start_seconds * depth / self.depth
            + images * self.image_seconds * multiply_adds / self.multiply_adds
        )


def count(planned: Sequence[PlannedRun]) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of each run's net, by `plan.net`; each is counted once."""
    from resnet_jax.models import counting, zoo

    counts: dict[str, tuple[int, int]] = {}
    known: dict[str, tuple[int, int]] = {}
    for run in plan.one_of_each_net(planned):
        shape, num_classes = data_shape(run)
        axes = run.config.model_overrides
        key = repr((run.config.model.name, axes, shape, num_classes))
        if key not in known:
            net = zoo.create(run.config.model.name, num_classes=num_classes, **axes)
            known[key] = tuple(counting.count(net, shape))
        counts[plan.net(run)] = known[key]
    return counts


def finished_references(planned: Sequence[PlannedRun], workdir: Path) -> list[Reference]:
    """Nets of which the workdir has a completed run; their time includes evaluation."""
    found = []
    for run in planned:
        summary = runs.read_run(workdir / run.name).summary or {}
        if summary.get("status") != "completed":
            continue
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


def data_shape(run: PlannedRun) -> tuple[tuple[int, int, int], int]:
    """Image shape and number of classes, without downloading anything where TFDS knows them."""
    from resnet_jax.data import datasets, raw_readers

    dataset = run.config.dataset
    if run.config.streaming:
        opened = datasets.open_records(dataset.name, dataset.train, dataset.data_dir)
        return (dataset.image_size, dataset.image_size, 3), len(opened.class_names)
    if dataset.name in raw_readers.NUM_EXAMPLES:
        import tensorflow_datasets as tfds

        features = tfds.builder(dataset.name).info.features
        return features["image"].shape, features["label"].num_classes
    examples = datasets.load(
        dataset.name, dataset.train, data_dir=dataset.data_dir, image_size=dataset.image_size
    )
    return examples.images.shape[1:], len(examples.class_names)
