"""v1's networks as plain numbers, for baselines that do not use this project's models."""

import dataclasses
import re

from resnet_jax.errors import InputError

_IMAGENET = {  # v1 Table 1: blocks of each stage, and whether they are bottlenecks
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A network's layers.

    Attributes:
      imagenet: it has the 7×7 stem and option B; else the 3×3 stem and option A (v1 §4.2).
      residual: it has shortcuts.
      bottleneck: a block's branch is 1×1, 3×3, 1×1, the first with the stride; else twice 3×3.
      blocks: (channels of the output, stride) of each.
    """

    imagenet: bool
    residual: bool
    bottleneck: bool
    blocks: tuple[tuple[int, int], ...]


def layout(name: str) -> Layout:
    """Of "plain-N" or "resnet-N", in v1's Table 1 or else of its CIFAR family.

    Raises:
      InputError: there is none of that name.
    """
    match = re.fullmatch(r"(plain|resnet)-(\d+)", name)
    depth = int(match[2]) if match else 0
    if depth not in _IMAGENET and (depth < 8 or depth % 6 != 2):
        raise InputError(
            f"net={name!r}: baselines are plain-N and resnet-N, N = 6n + 2 or "
            + ", ".join(map(str, _IMAGENET))
        )
    if depth in _IMAGENET:
        sizes, bottleneck = _IMAGENET[depth]
        widths = [64 * 2**stage * (4 if bottleneck else 1) for stage in range(4)]
    else:
        sizes, bottleneck, widths = [(depth - 2) // 6] * 3, False, [16, 32, 64]
    blocks = tuple(
        (width, 2 if stage and number == 0 else 1)
        for stage, (width, size) in enumerate(zip(widths, sizes, strict=True))
        for number in range(size)
    )
    return Layout(depth in _IMAGENET, match[1] == "resnet", bottleneck, blocks)
