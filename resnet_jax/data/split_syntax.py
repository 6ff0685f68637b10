"""TFDS's syntax of splits, for every source: `train[:45000]`, `train[90%:]`, `train+test`."""

from typing import Any

from resnet_jax.errors import InputError

# TensorFlow Datasets is imported where it is needed: it takes most of a second.


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
        raise InputError(f"{name}: split {spec!r}: {reason}; there is {existing}") from error
    parts = []
    for part in instructions:
        stop = splits[part.splitname].num_examples if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if any(start >= stop for _, start, stop in parts):
        raise InputError(f"{name}: split {spec!r} is empty; there is {existing}")
    return parts
