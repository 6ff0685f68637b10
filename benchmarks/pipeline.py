"""How fast images become batches: this project beside PyTorch's DataLoader, alternately in one run.

    python -m experiments.prepare_data --dataset=photographs --source=TREE --data_dir=DIR
    python -m benchmarks.pipeline --dataset=photographs --data_dir=DIR

First the CPU time of each stage, in one process; then whole pipelines that read the same records in
the same order and make the same crops, `uint8` in batches, with so many worker processes:

- `ours`: `resnet_jax.data.streaming`;
- `PyTorch, Pillow`: a DataLoader in the usual way: Pillow decodes, resizes all of it, crops;
- `PyTorch, same decoder`: a DataLoader around our decoder and crops: only the machinery differs.

PyTorch's are spared what a training script would add on the host, conversion to floats and
normalisation, which ours does on the device.
"""

import importlib.util
import io
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from PIL import Image

from experiments import command
from resnet_jax.data import datasets, device_dataset, image_ops, streaming
from resnet_jax.data.tfds_sets import Records

Pipeline = Callable[[Records, int, int, int], Generator]
"""`pipeline(records, batch_size, workers, steps)` yields so many batches."""

AUGMENTATION = "scale"
CROPS = image_ops.CropConfig()
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
    taken: dict[str, list[float]] = {}

    def timed(stage: str, function: Callable, arguments: Iterable) -> list:
        begin = time.process_time()
        results = [function(*each) for each in arguments]
        spent = time.process_time() - begin
        taken.setdefault(stage, []).append(1000 * spent / batch_size)
        return results

    for step in range(rounds):
        indices = device_dataset.batch_indices(SEED, step, batch_size, len(opened))
        read = timed("read", opened.__getitem__, ((int(i),) for i in indices))
        decoded = timed("decode", _decode, zip(read, strict=True))
        draws = [image_ops.crop_uniforms(SEED, place) for place in range(batch_size)]
        augmented = timed("augment", _augment, zip(decoded, draws, strict=True))
        (whole,) = timed("batch", np.stack, [(augmented,)])
        timed("transfer", lambda arrays: jax.block_until_ready(jax.device_put(arrays)), [(whole,)])
    return taken


def _decode(record: image_ops.EncodedImage) -> np.ndarray:
    return record.decode(min_side=image_ops.min_side(AUGMENTATION, CROPS))


def _augment(image: np.ndarray, draws: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    crop = image_ops.AUGMENTATIONS[AUGMENTATION](height, width, CROPS, draws)
    return image_ops.render(image, crop, CROPS.size)


def ours(opened: Records, batch_size: int, workers: int, steps: int) -> Generator:
    """Our batches; their devices would take them from here."""
    receiver = streaming.Receiver(streaming.normalization(opened, CROPS, "imagenet", "none"))
    stream = streaming.Stream(
        opened,
        receiver,
        augmentation=AUGMENTATION,
        crops=CROPS,
        rows=np.arange(batch_size),
        num_workers=workers,
    )
    try:
        for step in range(steps):
            yield stream.inputs(SEED, step, step + 1, batch_size, None)
    finally:
        stream.close()


def rate(make: Pipeline, opened: Records, workers: int) -> float:
    """Images a second, once the workers have started and what they had in stock is consumed."""
    stock, timed = 5 * workers + 1, math.ceil(_IMAGES.value / _BATCH.value)
    batches = make(opened, _BATCH.value, workers, stock + timed)
    for _ in range(stock):
        next(batches)
    begin = time.perf_counter()
    for _ in range(timed):
        next(batches)
    seconds = time.perf_counter() - begin
    batches.close()
    return timed * _BATCH.value / seconds


class Usual:
    """A DataLoader's data set as it is usually written, by (record, place in the stream)."""

    def __init__(self, opened: Records):
        self._records = opened

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int]:
        index, place = key
        record = self._records[index]
        return self._cut(record, image_ops.crop_uniforms(SEED, place)), record.label

    def _cut(self, record: image_ops.EncodedImage, draws: np.ndarray) -> np.ndarray:
        image = Image.open(io.BytesIO(record.encoded)).convert("RGB")
        low, high = CROPS.scales
        shorter = low + int(draws[0] * (high - low + 1))
        ratio, size = shorter / min(image.size), CROPS.size
        image = image.resize([max(shorter, round(side * ratio)) for side in image.size], 2)
        left = int(draws[1] * (image.width - size + 1))
        top = int(draws[2] * (image.height - size + 1))
        image = image.crop((left, top, left + size, top + size))
        if draws[-1] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image)


class SameDecoder(Usual):
    """The same around our decoder and crops."""

    def _cut(self, record: image_ops.EncodedImage, draws: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(_augment(_decode(record), draws))


def pytorch(kind: type[Usual]) -> Pipeline:
    """Batches of a DataLoader over `kind`."""

    def batches(opened: Records, batch_size: int, workers: int, steps: int) -> Generator:
        from torch.utils import data

        orders = [
            device_dataset.batch_indices(SEED, step, batch_size, len(opened))
            for step in range(steps)
        ]
        yield from data.DataLoader(
            kind(opened),
            batch_size,
            sampler=[(int(i), place) for place, i in enumerate(np.concatenate(orders))],
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )

    return batches


PIPELINES = {
    "ours": ours,
    "PyTorch, Pillow": pytorch(Usual),
    "PyTorch, same decoder": pytorch(SameDecoder),
}

_DATASET = flags.DEFINE_string("dataset", "imagenet2012", "a prepared TFDS set")
_SPLIT = flags.DEFINE_string("split", "train", "in TFDS's syntax")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder of data sets")
_BATCH = flags.DEFINE_integer("batch_size", 32, "images a batch", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 1000, "timed in a round", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "of all pipelines", lower_bound=1)
_WORKERS = flags.DEFINE_list("workers", ["1", "2"], "numbers of worker processes")
_DEVICE = flags.DEFINE_float("device_rate", 2500, "images a second that an accelerator takes")


def main() -> None:
    """Prints the stages' times, the pipelines' rates and how many cores one accelerator needs."""
    opened = datasets.open_records(_DATASET.value, _SPLIT.value, _DATA_DIR.value)
    pipelines = PIPELINES
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: ours alone")
        pipelines = {"ours": ours}
    print("CPU time an image, one process, median (range)")
    taken = stages(opened, _BATCH.value, 4 * _ROUNDS.value)
    for stage, spent in taken.items():
        low, high = min(spent), max(spent)
        print(f"  {stage:<9} {statistics.median(spent):6.3f} ms  ({low:.3f} to {high:.3f})")
    total = sum(map(statistics.median, taken.values()))
    print(f"  {'all':<9} {total:6.3f} ms: {1000 / total:.0f} images a second a core")
    found = [Rate(name, int(count), []) for count in _WORKERS.value for name in pipelines]
    for _ in range(_ROUNDS.value):  # In each round all run, one after another.
        for each in found:
            each.rounds.append(rate(pipelines[each.name], opened, each.workers))
    print(f"images a second, median of {_ROUNDS.value} rounds (range)")
    for each in found:
        print(f"  {each}")
    single = found[0].median / found[0].workers
    print(f"{_DEVICE.value:.0f} images a second need {_DEVICE.value / single:.1f} cores")


if __name__ == "__main__":
    command.run(main)
