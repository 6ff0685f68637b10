"""How fast pictures become batches: CPU time by stage, and images a second with workers."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from resnet_jax.data import device_dataset, image_ops
from resnet_jax.data.tfds_sets import Records

Pipeline = Callable[[Records, int, int, int], Iterator]
"""`pipeline(records, batch_size, workers, steps)` yields so many batches."""

AUGMENTATION = "scale"
FRAMING = image_ops.CropConfig()
SEED = 0


class Rate(NamedTuple):
    """Images a second of a pipeline: the median of some rounds, and their range."""

    name: str
    workers: int
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        low, high = min(self.rounds), max(self.rounds)
        text = f"{self.name:<24} {self.workers} worker(s) {self.median:7.0f} images/s"
        return f"{text}  ({low:.0f} to {high:.0f}), {self.median / self.workers:.0f} a worker"


def stages(opened: Records, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds an image of each of our stages, once a round, in this process."""
    import jax

    taken: dict[str, list[float]] = {}

    def timed(stage: str, function: Callable, arguments: Iterable) -> list:
        begin = time.process_time()
        results = [function(*each) for each in arguments]
        spent = time.process_time() - begin
        taken.setdefault(stage, []).append(1000 * spent / batch_size)
        return results

    def batch(images: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack(images)

    side, crop = image_ops.min_side(AUGMENTATION, FRAMING), image_ops.AUGMENTATIONS[AUGMENTATION]
    for step in range(rounds):
        indices = device_dataset.batch_indices(SEED, step, batch_size, len(opened))
        read = timed("read", opened.__getitem__, ((int(i),) for i in indices))
        decoded = timed(
            "decode", lambda record: record.decode(min_side=side), ((record,) for record in read)
        )
        draws = [image_ops.crop_uniforms(SEED, place) for place in range(batch_size)]
        augmented = timed(
            "augment",
            lambda picture, drawn: image_ops.render(
                picture, crop(*picture.shape[:2], FRAMING, drawn), FRAMING.size
            ),
            zip(decoded, draws, strict=True),
        )
        (whole,) = timed("batch", batch, [(augmented,)])
        timed("transfer", lambda arrays: jax.block_until_ready(jax.device_put(arrays)), [(whole,)])
    return taken


def ours(opened: Records, batch_size: int, workers: int, steps: int) -> Iterator:
    """Our batches; their devices would take them from here."""
    from resnet_jax.data import streaming

    receiver = streaming.Receiver(streaming.normalization(opened, FRAMING, "imagenet", "none"))
    stream = streaming.Stream(
        opened,
        receiver,
        augmentation=AUGMENTATION,
        crops=FRAMING,
        rows=np.arange(batch_size),
        num_workers=workers,
    )
    try:
        for step in range(steps):
            yield stream.inputs(SEED, step, step + 1, batch_size, None)
    finally:
        stream.close()


def rate(
    pipeline: Pipeline,
    opened: Records,
    batch_size: int,
    workers: int,
    images: int,
) -> float:
    """Images a second, once the workers have started and what they had in stock is consumed."""
    stock, timed = 5 * workers + 1, math.ceil(images / batch_size)
    batches = pipeline(opened, batch_size, workers, stock + timed)
    for _ in range(stock):
        next(batches)
    begin = time.perf_counter()
    for _ in range(timed):
        next(batches)
    seconds = time.perf_counter() - begin
    batches.close()
    return timed * batch_size / seconds


def compare(
    pipelines: Mapping[str, Pipeline],
    opened: Records,
    batch_size: int,
    workers: Sequence[int],
    images: int,
    rounds: int,
) -> list[Rate]:
    """The rates of all pipelines; each round runs all of them, one after another."""
    found = [Rate(name, count, []) for count in workers for name in pipelines]
    for _ in range(rounds):
        for each in found:
            own = rate(pipelines[each.name], opened, batch_size, each.workers, images)
            each.rounds.append(own)
    return found


def show(
    pipelines: Mapping[str, Pipeline],
    opened: Records,
    *,
    batch_size: int,
    workers: Sequence[int],
    images: int,
    rounds: int,
    device_rate: float,
) -> None:
    """Prints the stages' times, the pipelines' rates and how many cores one accelerator needs.

    Args:
      device_rate: images a second that an accelerator takes.
    """
    print("CPU time an image, one process, median (range)")
    taken = stages(opened, batch_size, 4 * rounds)
    for stage, spent in taken.items():
        low, high = min(spent), max(spent)
        print(f"  {stage:<9} {statistics.median(spent):6.3f} ms  ({low:.3f} to {high:.3f})")
    total = sum(map(statistics.median, taken.values()))
    print(f"  {'all':<9} {total:6.3f} ms: {1000 / total:.0f} images a second a core")
    found = compare(pipelines, opened, batch_size, workers, images, rounds)
    print(f"images a second, median of {rounds} rounds (range)")
    for each in found:
        print(f"  {each}")
    single = found[0].median / found[0].workers
    print(f"{device_rate:.0f} images a second need {device_rate / single:.1f} cores")
