"""A data set's splits: their names, TFDS's syntax for their parts, what training asks of one.

`train[:45000]`, `train[90%:]` and `train+test` mean the same for every source of data.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from resnet_jax.errors import InputError

if TYPE_CHECKING:
    import jax

    from resnet_jax.data.device_dataset import Normalization

# TensorFlow Datasets is imported where it is needed: it takes most of a second.

SPLITS = ("train", "validation", "test")
"""What a run's config names: to learn from, to choose by, to report."""

Inputs = Any
"""What goes to the devices for a batch: arrays [batch, …], of indices or of pixels and labels."""


class OnDevices(Protocol):
    """What of a split is on every device: a pytree that jitted functions take."""

    @property
    def normalization(self) -> "Normalization":
        """Of the training split."""

    def augmented(
        self, inputs: Inputs, key: "jax.Array", batch_size: int, own: Callable[[Any], Any]
    ) -> tuple["jax.Array", "jax.Array"]:
        """Images, float32 [batch, height, width, channels], and labels, to train on."""

    def plain(self, inputs: Inputs) -> tuple["jax.Array", "jax.Array"]:
        """The same to test on."""


class Split(Protocol):
    """A split to train or test on: `device_dataset.DeviceDataset` or `streaming.Stream`."""

    @property
    def on_devices(self) -> OnDevices: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int: ...

    def inputs(self, seed: int, start: int, end: int, batch_size: int, after: Any) -> Inputs:
        """Of the steps from `start` up to `end`, [steps, batch, …]; `after` comes from the last."""

    def close(self) -> None:
        """Ends what makes the inputs; asked for more, it begins anew."""

    def evaluation_inputs(self, batch_size: int) -> Iterator[tuple[Inputs, Any]]:
        """Every example once, in batches; filling is false in the mask, bool [batch]."""


def infos(sizes: dict[str, int]) -> dict[str, Any]:
    """A `tfds.core.SplitInfo` of each split of so many examples."""
    import tensorflow_datasets as tfds

    return {
        split: tfds.core.SplitInfo(name=split, shard_lengths=[size], num_bytes=0)
        for split, size in sizes.items()
    }


def resolve(name: str, spec: str, splits: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Each `(split, start, stop)` that a split in TFDS's syntax stands for.

    Args:
      name: the data set's, for messages.
      spec: the split.
      splits: a `tfds.core.SplitInfo` of each split that there is.

    Raises:
      InputError: it cannot be parsed, is out of range, of no split that there is, or empty.
    """
    import tensorflow_datasets as tfds

    existing = ", ".join(f"{split} ({info.num_examples:,})" for split, info in splits.items())
    try:
        instructions = tfds.core.ReadInstruction.from_spec(spec).to_absolute(splits)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[-1].rstrip(".")
        raise InputError(
            f"{name}: split {spec!r}: {reason}; there is {existing}{_hold_out(spec, splits)}"
        ) from error
    parts = []
    for part in instructions:
        stop = splits[part.splitname].num_examples if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if any(start >= stop for _, start, stop in parts):
        raise InputError(f"{name}: split {spec!r} is empty; there is {existing}")
    return parts


def check_apart(name: str, resolved: Sequence[tuple[str, list[tuple[str, int, int]]]]) -> None:
    """Checks that no example is used twice.

    Args:
      name: the data set's, for messages.
      resolved: each split that is used, and what `resolve` makes of it.

    Raises:
      InputError: two splits, or two parts of one, share examples.
    """
    placed = [(spec, *part) for spec, parts in resolved for part in parts]
    for (one, split, start, stop), (other, own, begin, end) in itertools.combinations(placed, 2):
        shared = min(stop, end) - max(start, begin)
        if split == own and shared > 0:
            raise InputError(
                f"{name}: {shared:,} examples are in {one!r} and again in {other!r}; give "
                "dataset.train, dataset.validation and dataset.test examples of their own"
            )


def _hold_out(spec: str, splits: dict[str, Any]) -> str:
    """How to do without a split that there is not: take the other one, or hold examples out."""
    if spec not in SPLITS or spec in splits or "train" not in splits:
        return ""
    # The field may be `dataset.test`: ImageNet configs report on what they call validation.
    is_there = spec == "validation" and "test" in splits
    other = "; to report on test: dataset.test='test'" if is_there else ""
    return f"{other}; to hold some out: dataset.train='train[:80%]', dataset.{spec}='train[80%:]'"
