"""Data sets too large for the devices: batches from records, made by worker processes.

A batch is a pure function of (seed, step): `resident.batch_indices` says which records it sees, and
the crop of each is drawn from the seed and its place in the stream. The order and every pixel are
therefore the same with any number of workers and processes, and a run that continues at a step
needs to know nothing but the step.
"""

import contextlib
import functools
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import struct

from resnet_jax.data import augment, crops, device_dataset, pictures
from resnet_jax.data.records import Records
from resnet_jax.errors import check_choice
from resnet_jax.runtime import setup

_FOREVER = 2**40  # steps
_AHEAD = 2  # batches that a worker has ready
_FOR_STATISTICS = 1000  # pictures


@struct.dataclass
class Receiver:
    """What a stream keeps on the devices, and what is done there with its batches.

    Attributes:
      normalization: of the training split.
      pca_lighting_std: standard deviation of `augment.pca_lighting`; 0 for none.
    """

    normalization: device_dataset.Normalization
    pca_lighting_std: float = struct.field(pytree_node=False, default=0.0)

    def augmented(
        self, batch: pictures.Batch, key: jax.Array, batch_size: int, own: Callable[[Any], Any]
    ) -> tuple[jax.Array, jax.Array]:
        """A batch as the network is trained on it; see `resident.Resident.augmented`."""
        noise = own(augment.pca_lighting(key, batch_size, self.pca_lighting_std))
        return self._normalized(batch[0], noise), batch[1]

    def plain(self, batch: pictures.Batch) -> tuple[jax.Array, jax.Array]:
        """A batch as the network is tested on it."""
        return self._normalized(batch[0], 0.0), batch[1]

    def _normalized(self, images: jax.Array, noise: jax.Array | float) -> jax.Array:
        mean, std = self.normalization
        return (images.astype(jnp.float32) / 255 + noise - mean) / std


class Stream:
    """A split that comes in batches from records.

    Attributes:
      on_devices: what is kept there.
      class_names: the name of each label.
    """

    def __init__(
        self,
        records: Records,
        receiver: Receiver,
        *,
        augmentation: str,
        framing: crops.Framing,
        rows: np.ndarray,
        num_workers: int | None = None,
    ):
        """A stream of `records`; nothing is read yet.

        Args:
          records: of the split.
          receiver: for the devices.
          augmentation: of training batches, a key of `crops.AUGMENTATIONS`.
          framing: of training and test crops.
          rows: those of a batch that this process's devices need, int [own].
          num_workers: processes that make batches; 0 makes them in this one, None is one a core.
        """
        check_choice("augmentation", augmentation, crops.AUGMENTATIONS)
        self.on_devices, self.class_names = receiver, records.class_names
        self._records, self._rows = records, rows
        self._augmentation, self._framing = augmentation, framing
        self._num_workers = setup.num_cores() if num_workers is None else num_workers
        self._next: tuple[int, int] | None = None  # seed and step that the iterator is at
        self._iterator: Iterator[pictures.Batch] | None = None

    def __len__(self) -> int:
        return len(self._records)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self._framing.size, self._framing.size, 3)

    def inputs(
        self, seed: int, start: int, end: int, batch_size: int, after: Any
    ) -> pictures.Batch:
        """The batches of the steps from `start` up to `end`, [steps, batch, …]: pixels and labels.

        Returns once `after`, an array of the step before, is computed: while a step is under way
        the next batch is fetched, and no more than that one waits for the devices.

        Raises:
          InputError: a picture cannot be decoded; the line names it.
        """
        if self._next != (seed, start):
            self.close()
            order = functools.partial(_training_order, seed, batch_size, len(self))
            self._iterator = self._read(order, self._augmentation, seed, start, _FOREVER)
        batches = [next(self._iterator) for _ in range(start, end)]
        self._next = (seed, end)
        jax.block_until_ready(after)
        if len(batches) == 1:
            return tuple(part[None] for part in batches[0])
        return tuple(np.stack(parts) for parts in zip(*batches, strict=True))

    def evaluation_inputs(self, batch_size: int) -> Iterator[tuple[pictures.Batch, np.ndarray]]:
        """All records once, seen in their centre: batches as `inputs`, and masks, bool [batch]."""
        order = functools.partial(_evaluation_order, batch_size, len(self))
        steps = -(-len(self) // batch_size)
        masks = device_dataset.evaluation_batches(len(self), batch_size)
        with contextlib.closing(self._read(order, "centre", 0, 0, steps)) as batches:
            for batch, (_, mask) in zip(batches, masks, strict=True):
                yield batch, mask

    def close(self) -> None:
        """Ends the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
        self._next = self._iterator = None

    def _read(
        self, order: Callable, augmentation: str, seed: int, start: int, stop: int
    ) -> Iterator[pictures.Batch]:
        batches = pictures.Batches(
            self._records,
            order,
            augmentation=augmentation,
            framing=self._framing,
            seed=seed,
            rows=self._rows,
            length=stop,
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
        finally:
            iterator.close()
            del iterator
            gc.collect()  # It refers to itself, and to its last batches in shared memory.


def _training_order(seed: int, batch_size: int, num_records: int, step: int) -> pictures.Order:
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    return pictures.Order(device_dataset.batch_indices(seed, step, batch_size, num_records), places)


def _evaluation_order(batch_size: int, num_records: int, step: int) -> pictures.Order:
    indices = np.arange(step * batch_size, (step + 1) * batch_size)
    return pictures.Order(np.where(indices < num_records, indices, 0), None)


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
    records: Records, framing: crops.Framing, mean: str, std: str
) -> device_dataset.Normalization:
    """Statistics of the training pictures' centres, as `resident.normalization`'s.

    They are of at most a thousand pictures, evenly spread over the split: a colour's
    mean is then known to about .005. An image of means ("pixel") makes no sense for crops of
    random scale and place, in which all positions see the same; the papers' is of fixed 224² crops.

    Raises:
      InputError: no such statistics for a stream, or a picture that cannot be decoded.
    """
    check_choice("mean", mean, device_dataset.COLOR_MEANS)
    count = _FOR_STATISTICS if "channel" in (mean, std) else 1
    chosen = np.unique(np.linspace(0, len(records) - 1, count).astype(int))
    sample = pictures.Batches(
        records,
        lambda _: pictures.Order(chosen, None),
        augmentation="centre",
        framing=framing,
        seed=0,
        rows=np.arange(len(chosen)),
        length=1,
    )
    return device_dataset.normalization(sample[0][0], mean, std)
