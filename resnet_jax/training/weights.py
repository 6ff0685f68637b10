"""The weights in a checkpoint, for which neither the data set nor the recipe need be known."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from resnet_jax.errors import InputError
from resnet_jax.training.checkpoints import Checkpoints


class SavedWeights(NamedTuple):
    """Weights as saved.

    Attributes:
      step: updates made until then.
      variables: what `model.apply` takes.
    """

    step: int
    variables: dict[str, Any]


def load_weights(directory: str | os.PathLike, step: int | None = None) -> SavedWeights:
    """Loads weights onto one device, wherever they were saved; the directory is left as it is.

    Args:
      directory: a run's folder of checkpoints.
      step: None for the last one that is whole.

    Raises:
      InputError: there is no such checkpoint, or it is damaged.
    """
    with Checkpoints(directory, read_only=True) as checkpoints:
        state = checkpoints.restore(step=step)
    # A net without batch norm has no statistics.
    variables = {"params": state["params"], "batch_stats": state.get("batch_stats", {})}
    return SavedWeights(int(state["step"]), variables)


def check_shapes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `InputError`, naming the first that differs, unless all wanted variables are there.

    Args:
      found, wanted: variables, or their shapes.
    """
    there = flatten_dict(found)
    for path, own in flatten_dict(wanted).items():
        if path not in there or there[path].shape != own.shape:
            has = list(there[path].shape) if path in there else "nothing"
            raise InputError(f"{'.'.join(path[1:])} is {has} there, here {list(own.shape)}")
