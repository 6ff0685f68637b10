"""How a stage's channels are numbered, and how to number them otherwise."""

import re
from collections.abc import Mapping

import numpy as np

from resnet_jax.models.architecture import Architecture

Path = tuple[str, ...]  # of a variable, e.g. ("params", "stage2_unit1", "conv1", "kernel")


def split_zero_channels(
    variables: Mapping[Path, np.ndarray], architecture: Architecture
) -> dict[Path, np.ndarray]:
    """Weights for `option_a_padding="both"`, from those of the same net with "end".

    Where option A's zero channels stand is a matter of how each stage's channels are numbered:
    the net computes the same when all weights that write or read them are renumbered.

    Args:
      variables: by path, of a net of basic units in the original order.
    """
    order = [np.arange(architecture.width)]  # order[stage][new number] = old number
    for stage in range(1, len(architecture.stage_sizes)):
        kept, total = architecture.stage_channels(stage - 1), architecture.stage_channels(stage)
        before, after = np.split(np.arange(kept, total), [(total - kept) // 2])
        order.append(np.concatenate([before, order[-1], after]))

    def renumber(path: Path, value: np.ndarray) -> np.ndarray:
        """One array with its channels, in and out, in the new order."""
        if path[1:] == ("classifier", "kernel"):
            return value[order[-1]]
        unit = re.fullmatch(r"stage(\d+)_unit(\d+)", path[1])
        if not unit:
            return value
        stage, number = int(unit[1]) - 1, int(unit[2])
        if path[2] in ("conv2", "norm2"):
            return value[..., order[stage]]
        if path[2] == "conv1":  # It reads what the unit before it put out.
            return value[:, :, order[stage if number > 1 else max(stage - 1, 0)]]
        return value

    return {path: renumber(path, value) for path, value in variables.items()}
