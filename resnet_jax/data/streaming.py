"""Data sets too large for the devices: batches from records, made by worker processes.

A batch is a pure function of (seed, step): `device_dataset.batch_indices` says which records it
sees, and the crop of each is drawn from the seed and its place in the stream. The order and every
pixel are therefore the same with any number of workers and processes, and a run that resumes at a
step needs to know nothing but the step.
"""

import contextlib
import dataclasses
import errno
import functools
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import struct

from resnet_jax.data import device_dataset, image_ops
from resnet_jax.data.image_ops import CropConfig
from resnet_jax.data.tfds_sets import Records
from resnet_jax.errors import InputError, check_choice, os_error_number
from resnet_jax.runtime import setup

_FOREVER = 2**40  # steps
_AHEAD = 2  # batches that a worker has ready
_IN_MEMORY = 6  # batches a worker in shared memory: ready, read ahead here, under way (measured)
_FOR_STATISTICS = 1000  # images


Batch = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [batch, size, size, 3], and labels, int32 [batch]."""
OnDevice = tuple[jax.Array, jax.Array]  # the same there


@dataclasses.dataclass(frozen=True)
class Batches:
    """`batches[step]` decodes and crops a step's images; worker processes have copies.

    Attributes:
      records: of a split.
      order: which records a step sees, int [batch].
      crops: how they are cropped.
      rows: which of a batch this process needs, int [own]; no others are read.
      length: how many steps there are.
      augmentation: a key of `image_ops.AUGMENTATIONS`.
      seed: of the crops; None if nothing is to be random.
      upright: whether the EXIF orientation is applied.
    """

    records: Records
    order: Callable[[int], np.ndarray]
    crops: CropConfig
    rows: np.ndarray
    length: int = 1
    augmentation: str = "centre"
    seed: int | None = None
    upright: bool = False

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Batch:
        """This process's rows alone: images, uint8 [own, size, size, 3], and labels, int32 [own].

        Raises `InputError`, naming the record, for an image that cannot be decoded.
        """
        order, size = self.order(step), self.crops.size
        images = np.empty((len(self.rows), size, size, 3), np.uint8)
        labels = np.empty(len(self.rows), np.int32)
        for i, row in enumerate(self.rows):
            place = step * len(order) + int(row)  # in the stream
            images[i], labels[i] = self.example(int(order[row]), place)
        return images, labels

    def example(self, index: int, place: int) -> tuple[np.ndarray, int]:
        """The crop of record number `index` at that place of the stream, and its label."""
        record = self.records[index]
        side = image_ops.min_side(self.augmentation, self.crops)
        try:
            image = record.decode(min_side=side, upright=self.upright)
        except InputError as error:
            raise InputError(f"dataset: {error}") from error
        draws = None if self.seed is None else image_ops.crop_uniforms(self.seed, place)
        cut = image_ops.AUGMENTATIONS[self.augmentation]
        crop = cut(image.shape[0], image.shape[1], self.crops, draws)
        return image_ops.render(image, crop, self.crops.size), record.label


class Receiver(struct.PyTreeNode):
    """What a stream keeps on the devices, and what is done there with its batches.

    Attributes:
      normalization: of the training split.
      pca_lighting_std: standard deviation of `device_dataset.pca_lighting`; 0 for none.
    """

    normalization: device_dataset.Normalization
    pca_lighting_std: float = struct.field(pytree_node=False, default=0.0)

    def augmented(
        self, batch: OnDevice, key: jax.Array, batch_size: int, own: Callable[[Any], Any]
    ) -> OnDevice:
        """A batch as the network is trained on it; see `DeviceDataset.augmented`."""
        noise = own(device_dataset.pca_lighting(key, batch_size, self.pca_lighting_std))
        return self._normalized(batch[0], noise), batch[1]

    def plain(self, batch: OnDevice) -> OnDevice:
        """A batch as the network is tested on it."""
        return self._normalized(batch[0], 0.0), batch[1]

    def _normalized(self, images: jax.Array, noise: jax.Array | float) -> jax.Array:
        mean, std = self.normalization
        return (images.astype(jnp.float32) / 255 + noise - mean) / std


class Stream:
    """A split that comes in batches from records.

    Attributes:
      on_devices: what is kept there.
    """

    def __init__(
        self,
        records: Records,
        receiver: Receiver,
        *,
        augmentation: str,
        crops: CropConfig,
        rows: np.ndarray,
        num_workers: int | None = None,
        upright: bool = False,
    ):
        """A stream of `records`; nothing is read yet.

        Args:
          records: of the split.
          receiver: for the devices.
          augmentation: of training batches, a key of `image_ops.AUGMENTATIONS`.
          crops: of training and of tests.
          rows: those of a batch that this process's devices need, int [own].
          num_workers: processes that make batches; 0 makes them in this one, None is one a core.
          upright: whether the EXIF orientation of images is applied.
        """
        check_choice("augmentation", augmentation, image_ops.AUGMENTATIONS)
        self.on_devices = receiver
        self._records, self._rows = records, rows
        self._augmentation, self._crops = augmentation, crops
        self._upright = upright
        self._num_workers = setup.num_cores() if num_workers is None else num_workers
        self._next: tuple[int, int] | None = None  # seed and step that the iterator is at
        self._iterator: Generator[Batch] | None = None

    def __len__(self) -> int:
        return len(self._records)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self._crops.size, self._crops.size, 3)

    def inputs(self, seed: int, start: int, end: int, batch_size: int, after: Any) -> Batch:
        """The batches of the steps from `start` up to `end`, [steps, batch, …]: pixels and labels.

        Returns once `after`, an array of the step before, is computed: while a step is under way
        the next batch is fetched, and no more than that one waits for the devices.

        Raises:
          InputError: an image cannot be decoded; the line names it. Or shared memory is full.
        """
        if self._iterator is None or self._next != (seed, start):
            self.close()
            order = functools.partial(
                device_dataset.batch_indices, seed, batch_size=batch_size, num_examples=len(self)
            )
            how = {"augmentation": self._augmentation, "seed": seed}
            self._iterator = self._read(order, start, _FOREVER, **how)
        batches = [next(self._iterator) for _ in range(start, end)]
        self._next = (seed, end)
        jax.block_until_ready(after)
        return self._in_rows(batches, batch_size)

    def evaluation_inputs(self, batch_size: int) -> Iterator[tuple[Batch, np.ndarray]]:
        """All records once, seen in their centre: batches as `inputs`, and masks, bool [batch]."""
        orders, masks = zip(*device_dataset.evaluation_batches(len(self), batch_size), strict=True)
        with contextlib.closing(self._read(orders.__getitem__, 0, len(orders))) as batches:
            for batch, mask in zip(batches, masks, strict=True):
                images, labels = self._in_rows([batch], batch_size)
                yield (images[0], labels[0]), mask

    def _in_rows(self, batches: Sequence[Batch], batch_size: int) -> Batch:
        """This process's rows at their places in whole batches, [steps, batch, …].

        The rows of other processes are never written: they take addresses, but no memory.
        """
        if len(batches) == 1 and len(self._rows) == batch_size:
            images, labels = batches[0]
            return images[None], labels[None]
        images = np.empty((len(batches), batch_size, *self.image_shape), np.uint8)
        labels = np.zeros((len(batches), batch_size), np.int32)
        for i, batch in enumerate(batches):
            images[i, self._rows], labels[i, self._rows] = batch
        return images, labels

    def close(self) -> None:
        """Ends the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
        self._next = self._iterator = None

    def _read(self, order: Callable, start: int, stop: int, **how: Any) -> Generator[Batch]:
        batches = Batches(
            self._records, order, self._crops, self._rows, stop, upright=self._upright, **how
        )
        in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        num_workers = min(self._num_workers, stop - start)
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=_AHEAD)
        steps = grain.MapDataset.source(batches)[start:].to_iter_dataset(in_worker)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain asks flags, which only commands have parsed.
        begin = functools.partial(_begin_worker, os.getpid())
        iterator = iter(steps.mp_prefetch(workers, worker_init_fn=begin))
        try:
            with _signals_blocked():  # The workers start with the first batch.
                first = [next(iterator)]
            yield first.pop()
            yield from iterator
        except (OSError, RuntimeError) as error:
            if not _is_of_full_memory(error):
                raise
            megabytes = len(self._rows) * np.prod(self.image_shape) / 1e6
            raise InputError(
                f"streaming.num_workers={num_workers}: /dev/shm is full, where up to "
                f"{_IN_MEMORY * num_workers + 1} batches of {megabytes:,.1f} MB wait, and as many "
                "in an evaluation; give it more memory (--shm-size of a container), or fewer "
                "workers"
            ) from error
        finally:
            iterator.close()
            del iterator
            gc.collect()  # It refers to itself, and to its last batches in shared memory.


def _is_of_full_memory(error: Exception) -> bool:
    """Whether a queue had no room in shared memory, or a batch: then SIGBUS ends its worker.

    Reading records writes no file, so that no other disk can be full here.
    """
    ended = f"exit code -{signal.SIGBUS.value}."  # as Grain says it
    return os_error_number(error) == errno.ENOSPC or ended in str(error)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """SIGINT and SIGTERM pass this thread by, and processes and threads begun meanwhile for good.

    They are for the parent's other threads, or for later; the parent stops its workers.
    """
    resource_tracker.ensure_running()  # Beginning later, it would let the signals through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(parent: int, index: int, count: int) -> None:
    """In a worker: without its parent it ends."""
    del index, count

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def normalization(
    records: Records, crops: CropConfig, mean: str, std: str
) -> device_dataset.Normalization:
    """Statistics of the training images' centres, as `device_dataset.normalization`'s.

    They are of at most a thousand images, evenly spread over the split: a colour's
    mean is then known to about .005. An image of means ("pixel") makes no sense for crops of
    random scale and place, in which all positions see the same; the papers' is of fixed 224² crops.

    Raises:
      InputError: no such statistics for a stream, or an image that cannot be decoded.
    """
    check_choice("mean", mean, device_dataset.COLOR_MEANS)
    count = _FOR_STATISTICS if "channel" in (mean, std) else 1
    chosen = np.unique(np.linspace(0, len(records) - 1, count).astype(int))
    sample = Batches(records, lambda _: chosen, crops, np.arange(len(chosen)))
    return device_dataset.normalization(sample[0][0], mean, std)
