"""The weights in a checkpoint, for which neither the data set nor the recipe need be known."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

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
    """Loads weights onto one device, wherever they were saved.

    Args:
      directory: a run's folder of checkpoints.
      step: None for the last one.

    Raises:
      InputError: there is no such checkpoint.
    """
    with Checkpoints(directory) as checkpoints:
        steps = checkpoints.steps
        if step is None and steps:
            step = steps[-1]
        # `restore` says what there is if this one is not there.
        template = _saved_shapes(Path(directory).absolute() / str(step)) if step in steps else None
        state = checkpoints.restore(template, step)
    # A net without batch norm has no statistics.
    variables = {"params": state["params"], "batch_stats": state.get("batch_stats", {})}
    return SavedWeights(int(state["step"]), variables)


def _saved_shapes(checkpoint: Path) -> Any:
    saved = ocp.StandardCheckpointHandler().metadata(checkpoint / "default").tree
    # Without this, Orbax wants the very devices from which the arrays were saved.
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), saved
    )
