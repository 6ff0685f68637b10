"""How fast pictures become batches: ours beside PyTorch's DataLoader, alternating in one run.

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

import io
from collections.abc import Iterator

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.pipeline_speed import AUGMENTATION, FRAMING, SEED, Pipeline, ours, show
from experiments import command
from resnet_jax.data import datasets, device_dataset, image_ops
from resnet_jax.data.tfds_sets import Records


class Usual:
    """A DataLoader's data set as it is usually written, by (record, place in the stream)."""

    def __init__(self, opened: Records):
        self._records = opened

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int]:
        index, place = key
        record, draws = self._records[index], image_ops.crop_uniforms(SEED, place)
        picture = Image.open(io.BytesIO(record.encoded)).convert("RGB")
        low, high = FRAMING.scales
        shorter = low + int(draws[0] * (high - low + 1))
        ratio, size = shorter / min(picture.size), FRAMING.size
        picture = picture.resize([max(shorter, round(side * ratio)) for side in picture.size], 2)
        left = int(draws[1] * (picture.width - size + 1))
        top = int(draws[2] * (picture.height - size + 1))
        picture = picture.crop((left, top, left + size, top + size))
        if draws[-1] < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(picture), record.label


class SameDecoder(Usual):
    """The same around our decoder and crops."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int]:
        index, place = key
        record = self._records[index]
        picture = image_ops.decode(
            record.encoded, min_side=image_ops.min_side(AUGMENTATION, FRAMING)
        )
        crop = image_ops.AUGMENTATIONS[AUGMENTATION](
            *picture.shape[:2], FRAMING, image_ops.crop_uniforms(SEED, place)
        )
        return np.ascontiguousarray(image_ops.render(picture, crop, FRAMING.size)), record.label


def pytorch(kind: type[Usual]) -> Pipeline:
    """Batches of a DataLoader over `kind`."""

    def batches(opened: Records, batch_size: int, workers: int, steps: int) -> Iterator:
        from torch.utils import data

        places = range(steps * batch_size)
        order = np.concatenate(
            [
                device_dataset.batch_indices(SEED, step, batch_size, len(opened))
                for step in range(steps)
            ]
        )
        yield from data.DataLoader(
            kind(opened),
            batch_size,
            sampler=list(zip(order.tolist(), places, strict=True)),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )

    return batches


PIPELINES = {
    "ours": ours,
    "PyTorch, Pillow": pytorch(Usual),
    "PyTorch, same decoder": pytorch(SameDecoder),
}


def _runnable() -> dict[str, Pipeline]:
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch is not installed: ours alone")
        return {"ours": ours}
    return PIPELINES


_DATASET = flags.DEFINE_string("dataset", "imagenet2012", "a prepared TFDS set")
_SPLIT = flags.DEFINE_string("split", "train", "in TFDS's syntax")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder of data sets")
_BATCH = flags.DEFINE_integer("batch_size", 32, "images a batch", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 1000, "timed in a round", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "of all pipelines", lower_bound=1)
_WORKERS = flags.DEFINE_list("workers", ["1", "2"], "numbers of worker processes")
_DEVICE = flags.DEFINE_float("device_rate", 2500, "images a second that an accelerator takes")


def main(argv: list[str]) -> None:
    """Prints both tables, and how many cores one accelerator needs."""
    del argv
    show(
        _runnable(),
        datasets.open_records(_DATASET.value, _SPLIT.value, _DATA_DIR.value),
        batch_size=_BATCH.value,
        workers=[int(count) for count in _WORKERS.value],
        images=_IMAGES.value,
        rounds=_ROUNDS.value,
        device_rate=_DEVICE.value,
    )


if __name__ == "__main__":
    command.run(main)
