"""The papers' networks by name: a name stands for values of the architecture's axes."""

import contextlib
import dataclasses
import difflib
import re
from typing import TYPE_CHECKING, Any

from resnet_jax.errors import InputError, check_choice
from resnet_jax.models.architecture import BLOCKS, Architecture

if TYPE_CHECKING:
    from resnet_jax.models.resnet import ResNet

FAMILIES: dict[str, dict[str, str]] = {
    "plain": {"shortcut": "none"},
    "resnet": {},
    "preact-resnet": {"order": "full_preact"},
}

IMAGENET_STAGES = {  # v1 Table 1; 200 layers: v2 §5
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 164, 1001, 1202)  # of both papers' tables
CIFAR_BOTTLENECKS = (164, 1001)  # v2 Tables 2 and 3

_NAME = re.compile(r"(cifar-)?(plain|resnet|preact-resnet)-(\d+)")


def names() -> list[str]:
    """Names of the papers' networks and their plain twins; CIFAR networks have any depth 6n+2."""
    depths = (*CIFAR_DEPTHS, *IMAGENET_STAGES)
    return [f"{family}-{depth}" for family in FAMILIES for depth in depths]


def describe(name: str, **overrides: Any) -> Architecture:
    """The architecture that a name stands for.

    Args:
      name: "plain-N", "resnet-N" or "preact-resnet-N". N = 18, 34, 50, 101, 152, 200 are the
        four-stage ImageNet networks (option B); every other N = 6n+2 is a three-stage CIFAR network
        of basic blocks (option A; v1 §4.2), but 164 and 1001 = 9n+2 are bottlenecks with option B
        (v2). "cifar-resnet-50" is the CIFAR network of a depth that both have.
      **overrides: any attribute of `Architecture`, e.g. `shortcut`, `option`, `block`.

    Raises:
      InputError: no such name, depth or attribute; it says what is allowed and nearest.
    """
    fields = {field.name for field in dataclasses.fields(Architecture)}
    for key in overrides:
        check_choice("override", key, sorted(fields))
    prefix, family, depth = _parse(name)
    if depth in IMAGENET_STAGES and not prefix:
        axes = _imagenet(name, depth, overrides.get("block"))
    else:
        axes = _cifar(name, depth, overrides.get("block"))
    return Architecture(**{**axes, **FAMILIES[family], **overrides})


def depth(name: str) -> int:
    """The number of layers in a name, whether or not there is such a network.

    Raises:
      InputError: not a name of a network.
    """
    return _parse(name)[2]


def create(
    name: str,
    num_classes: int = 10,
    dtype: Any = "float32",
    *,
    remat: str = "none",
    scan_blocks: bool = False,
    **overrides: Any,
) -> "ResNet":
    """The network of that name, a linen module.

    Args:
      name, **overrides: see `describe`.
      num_classes: of the classifier.
      dtype: of activations, "float32" or "bfloat16"; parameters are float32.
      remat, scan_blocks: see `ResNet`.

    Raises:
      InputError: see `describe`; or another `dtype` or `remat` than there is.
    """
    # Here, so that names can be checked without loading JAX.
    import jax.numpy as jnp

    from resnet_jax.models.resnet import REMATS, ResNet

    net = describe(name, **overrides)
    check_choice("remat", remat, REMATS)
    with contextlib.suppress(TypeError):  # What is no dtype is no choice, either.
        dtype = jnp.dtype(dtype).name
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    return ResNet(
        net, jnp.dtype(dtype), num_classes=num_classes, remat=remat, scan_blocks=scan_blocks
    )


def _parse(name: str) -> tuple[str | None, str, int]:
    """("cifar-" or None, family, depth)"""
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(_unknown(name))
    return match[1], match[2], int(match[3])


def _imagenet(name: str, depth: int, block: str | None) -> dict[str, Any]:
    own = "bottleneck" if depth >= 50 else "basic"
    if block not in (None, own):
        raise InputError(
            f"name={name!r}: the ImageNet network of that depth has block={own!r} only"
        )
    return {
        "stem": "imagenet",
        "stage_sizes": IMAGENET_STAGES[depth],
        "width": 64,
        "block": own,
        "option": "B",
    }


def _cifar(name: str, depth: int, block: str | None) -> dict[str, Any]:
    if block is None:
        block = "bottleneck" if depth in CIFAR_BOTTLENECKS else "basic"
    check_choice("block", block, BLOCKS)
    layers = 3 * BLOCKS[block]
    blocks, rest = divmod(depth - 2, layers)
    if rest or blocks < 1:
        raise InputError(_wrong_depth(name, depth, block))
    return {
        "stage_sizes": (blocks,) * 3,
        "block": block,
        "option": "B" if block == "bottleneck" else "A",
    }


def _wrong_depth(name: str, depth: int, block: str) -> str:
    layers = 3 * BLOCKS[block]
    nearest = max(round((depth - 2) / layers), 1) * layers + 2
    family = name.rsplit("-", 1)[0]
    if nearest in IMAGENET_STAGES and not family.startswith("cifar-"):
        family = f"cifar-{family}"  # Without it the name is ImageNet's.
    others = [
        f"block={other!r}"
        for other, count in BLOCKS.items()
        if other != block and depth > 2 and (depth - 2) % (3 * count) == 0
    ]
    return (
        f"name={name!r}: CIFAR depths with block={block!r} are {layers}n+2 "
        f"({layers + 2}, {2 * layers + 2}, {3 * layers + 2}, …), ImageNet depths are "
        f"{', '.join(map(str, IMAGENET_STAGES))}; nearest: {family}-{nearest}"
        + (f", or {' or '.join(others)}" if others else "")
    )


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    return f"name={name!r}: names are {', '.join(f'{family}-N' for family in FAMILIES)}" + (
        f"; nearest: {nearest[0]}" if nearest else ""
    )
