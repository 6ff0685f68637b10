"""The weights in a checkpoint, for which neither the data set nor the recipe need be known."""

import os
from typing import Any, NamedTuple

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
