"""The networks as plain numbers, for baselines that do not use this project's models.

Loads no JAX: an interpreter that has PyTorch alone will do.
"""

import dataclasses
import re

from resnet_jax.errors import InputError
from resnet_jax.models import zoo


@dataclasses.dataclass(frozen=True)
class Layout:
    """A network's layers.

    Attributes:
      imagenet: it has the 7×7 stem; else the 3×3 stem.
      residual: it has shortcuts.
      projects: shortcuts project where shapes change (option B); else they pad (option A).
      bottleneck: a block's branch is 1×1, 3×3, 1×1, the first with the stride; else twice 3×3.
      blocks: (channels of the output, stride) of each.
    """

    imagenet: bool
    residual: bool
    projects: bool
    bottleneck: bool
    blocks: tuple[tuple[int, int], ...]


def layout(name: str) -> Layout:
    """Of "plain-N" or "resnet-N", as `zoo.describe` has them.

    Raises:
      InputError: there is none of that name.
    """
    try:
        net = zoo.describe(name if re.fullmatch(r"(plain|resnet)-\d+", name) else "")
    except InputError as error:
        depths = ", ".join(map(str, (*zoo.IMAGENET_STAGES, *zoo.CIFAR_BOTTLENECKS)))
        raise InputError(
            f"net={name!r}: baselines are plain-N and resnet-N, N = 6n + 2 or {depths}"
        ) from error
    blocks = tuple(
        (net.stage_channels(stage), 2 if stage and number == 0 else 1)
        for stage, size in enumerate(net.stage_sizes)
        for number in range(size)
    )
    return Layout(
        imagenet=net.stem == "imagenet",
        residual=net.shortcut != "none",
        projects=net.option == "B",
        bottleneck=net.block == "bottleneck",
        blocks=blocks,
    )
