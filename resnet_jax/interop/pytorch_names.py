"""Weights under PyTorch's names and axes become our variables, and back.

Two layouts are known. Both are of v1's residual networks with batch norm and ReLU:

- "torchvision": torchvision's and timm's resnet18, 34, 50, 101 and 152, whose bottlenecks stride
  in the 3×3 ("v1.5");
- "akamaster": the CIFAR networks of akamaster/pytorch_resnet_cifar10, resnet20 to 1202, whose
  option A puts half of the zero channels on each side.

Tensors are NumPy arrays here; `resnet_jax.interop.weight_files` reads and writes the files.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.architecture import BLOCKS, Architecture

Path = tuple[str, ...]  # of a variable, e.g. ("params", "stage2_unit1", "conv1", "kernel")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a library names the parts of its networks, and which networks it has.

    Attributes:
      classifier, projection: names of these modules; the others agree in all libraries.
      axes: values of `Architecture`'s axes that its networks may have.
    """

    classifier: str
    projection: str
    axes: Mapping[str, tuple]


_V1 = {
    "shortcut": ("identity",),
    "order": ("original",),
    "norm": ("batch",),
    "activation": ("relu",),
    # Others add parameters to blocks.
    "initialization": ("he_normal", "he_normal_fan_out", "delta_orthogonal"),
    "output_stride": (32,),
}
LAYOUTS = {
    "torchvision": Layout("fc", "downsample", {**_V1, "stem": ("imagenet",), "option": ("B",)}),
    "akamaster": Layout(
        "linear",
        "shortcut",
        {**_V1, "stem": ("cifar",), "option": ("A", "B"), "block": ("basic",)},
    ),
}

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # PyTorch uses it only where batch norm has no momentum.
_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # PyTorch's, by rank: of ours, HWIO -> OIHW
_SHOWN = 4  # names of each kind in a message


class Weights(NamedTuple):
    """A network and its weights.

    `zoo.create(name, num_classes, **overrides).apply(variables, images)` computes what the
    PyTorch network computes in evaluation.
    """

    name: str
    overrides: dict[str, Any]
    num_classes: int
    variables: dict[str, Any]


def from_torch(state_dict: Mapping[str, Any]) -> Weights:
    """Finds out which network a state dict is of, and takes its weights, as float32.

    Args:
      state_dict: arrays by PyTorch's names; or that under the key "state_dict", as training
        scripts save it, and with the prefix "module." of `torch.nn.DataParallel`.

    Raises:
      InputError: it is of no known network, or a tensor is missing, surplus or of another shape.
    """
    tensors = _unwrap(state_dict)
    layout = _find_layout(tensors)
    name, overrides = _find_net(tensors, layout)
    num_classes, _ = _shape(tensors, f"{LAYOUTS[layout].classifier}.weight", 2)
    _, channels, _, _ = _shape(tensors, "conv1.weight", 4)
    shapes = _shapes(zoo.create(name, num_classes, **overrides), channels)
    names = {path: _torch_name(path, LAYOUTS[layout]) for path in shapes}
    wanted = {names[path]: _permuted(shape) for path, shape in shapes.items()}
    _account_for(tensors, wanted, name)
    flat = {path: _from_torch_axes(tensors[names[path]]) for path in shapes}
    return Weights(name, overrides, num_classes, unflatten_dict(flat))


def to_torch(
    variables: Mapping[str, Any], architecture: Architecture, layout: str, num_batches: int = 0
) -> dict[str, np.ndarray]:
    """A state dict with which the library's network of that depth computes the same.

    Args:
      variables: "params" and "batch_stats" of a net.
      architecture: of that net.
      layout: a key of `LAYOUTS`.
      num_batches: training steps made, for batch norm's `num_batches_tracked`.

    Raises:
      InputError: the library has no such net.
    """
    check_has(layout, architecture)
    flat = {path: np.asarray(value) for path, value in flatten_dict(variables).items()}
    if architecture.option == "A" and architecture.option_a_padding == "end":
        flat = split_zero_channels(flat, architecture)
    tensors = {}
    for path, value in flat.items():
        name = _torch_name(path, LAYOUTS[layout])
        tensors[name] = np.ascontiguousarray(value.transpose(_AXES[value.ndim]))
        if path[-1] == "var":
            tensors[_counter_beside(name)] = np.array(num_batches, np.int64)
    return tensors


def split_zero_channels(
    variables: Mapping[Path, np.ndarray], architecture: Architecture
) -> dict[Path, np.ndarray]:
    """Weights for `option_a_padding="both"`, from those of the same network with "end".

    Where option A's zero channels stand is a matter of how each stage's channels are numbered:
    the network computes the same when all weights that write or read them are renumbered.

    Args:
      variables: by path, of a network of basic blocks in the original order.
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
        block = re.fullmatch(r"stage(\d+)_unit(\d+)", path[1])
        if not block:
            return value
        stage, number = int(block[1]) - 1, int(block[2])
        if path[2] in ("conv2", "norm2"):
            return value[..., order[stage]]
        if path[2] == "conv1":  # It reads what the block before it put out.
            return value[:, :, order[stage if number > 1 else max(stage - 1, 0)]]
        return value

    return {path: renumber(path, value) for path, value in variables.items()}


def check_has(layout: str, architecture: Architecture) -> None:
    """Raises `InputError`, naming the axis, if a library has no networks of this kind."""
    check_choice("layout", layout, LAYOUTS)
    axes = dict(LAYOUTS[layout].axes)
    if architecture.block == "bottleneck":  # Other branches have one place to stride in.
        axes["downsample_in"] = ("3x3",)
    for axis, allowed in axes.items():
        if getattr(architecture, axis) not in allowed:
            raise InputError(
                f"{axis}={getattr(architecture, axis)!r}: {layout}'s networks have "
                f"{' or '.join(map(repr, allowed))}; with these weights they would compute "
                "something else"
            )


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    tensors = state_dict.get("state_dict", state_dict)
    if not isinstance(tensors, Mapping):
        raise InputError(f"state_dict is a {type(tensors).__name__}; wanted tensors by name")
    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray):
            kind = type(tensor).__name__  # "Tensor", of PyTorch's own state dict
            raise InputError(f"{name!r} is a {kind}, not a tensor in a NumPy array")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _find_layout(tensors: Collection[str]) -> str:
    for name, layout in LAYOUTS.items():
        if f"{layout.classifier}.weight" in tensors:
            return name
    raise InputError(
        "no ResNet of torchvision or timm (missing: fc.weight) nor one of akamaster's (missing: "
        f"linear.weight); there is {_listed(tensors)}"
    )


def _find_net(tensors: Mapping[str, np.ndarray], layout: str) -> tuple[str, dict[str, Any]]:
    """The zoo's name, and the axes in which the network differs from what the name stands for."""
    sizes = _stage_sizes(tensors)
    axes: dict[str, Any] = {"block": "basic", "width": _shape(tensors, "conv1.weight", 4)[0]}
    if layout == "torchvision":
        if any(".conv3." in name for name in tensors):
            axes |= {"block": "bottleneck", "downsample_in": "3x3"}
        name = _imagenet_name(sizes, axes["block"])
    else:
        projects = any(f".{LAYOUTS[layout].projection}." in name for name in tensors)
        axes |= {"option": "B"} if projects else {"option": "A", "option_a_padding": "both"}
        name = _cifar_name(sizes)
    if name is None:
        blocks = "-".join(map(str, sizes)) or "no"
        raise InputError(
            f"{layout} has no network with {blocks} {axes['block']} blocks in its layers"
        )
    default = zoo.describe(name)
    return name, {axis: value for axis, value in axes.items() if getattr(default, axis) != value}


def _imagenet_name(sizes: tuple[int, ...], block: str) -> str | None:
    nets = {f"resnet-{depth}": zoo.describe(f"resnet-{depth}") for depth in zoo.IMAGENET_STAGES}
    fits = (name for name, net in nets.items() if (net.stage_sizes, net.block) == (sizes, block))
    return next(fits, None)


def _cifar_name(sizes: tuple[int, ...]) -> str | None:
    if not sizes or sizes != sizes[:1] * 3:
        return None
    depth = sum(sizes) * BLOCKS["basic"] + 2
    return f"cifar-resnet-{depth}" if depth in zoo.IMAGENET_STAGES else f"resnet-{depth}"


def _stage_sizes(tensors: Collection[str]) -> tuple[int, ...]:
    """Blocks in layer1, layer2, …"""
    matches = filter(None, (re.match(r"layer(\d+)\.(\d+)\.", name) for name in tensors))
    units = {(int(match[1]), int(match[2])) for match in matches}
    stages = range(1, max((stage for stage, _ in units), default=0) + 1)
    return tuple(max((u + 1 for s, u in units if s == stage), default=0) for stage in stages)


def _shape(tensors: Mapping[str, np.ndarray], name: str, rank: int) -> tuple[int, ...]:
    if name not in tensors:
        raise InputError(f"missing: {name}")
    if tensors[name].ndim != rank:
        raise InputError(f"misshapen: {name} {list(tensors[name].shape)}, wanted {rank} axes")
    return tensors[name].shape


def _shapes(model: nn.Module, channels: int) -> dict[Path, tuple[int, ...]]:
    """The shape of each of a model's variables, for images of so many channels."""
    # Weights don't depend on the image's size.
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _account_for(
    tensors: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], net: str
) -> None:
    """Raises `InputError` unless all wanted tensors, and no others, are there in their shapes."""
    counters = {_counter_beside(name) for name in wanted if name.endswith(".running_var")}
    known = {**wanted, **dict.fromkeys(counters, ())}
    found = [name for name in tensors if name in known]
    problems = {
        # Files from before PyTorch 0.4.1 have no counters.
        "missing": [name for name in wanted if name not in tensors],
        "surplus": [name for name in tensors if name not in known],
        "misshapen": [
            f"{name} {list(tensors[name].shape)} instead of {list(known[name])}"
            for name in found
            if tensors[name].shape != known[name]
        ],
        "not floating-point": [
            f"{name} ({tensors[name].dtype})"
            for name in found
            if name in wanted and not np.issubdtype(tensors[name].dtype, np.floating)
        ],
        "not finite": [name for name in found if not np.isfinite(tensors[name]).all()],
        "negative": [
            name for name in found if name.endswith(".running_var") and (tensors[name] < 0).any()
        ],
    }
    told = [f"{kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if told:
        raise InputError(f"not the weights of {net}; {'; '.join(told)}")


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(list(names)[:_SHOWN]) or "nothing") + more


def _torch_name(path: Path, layout: Layout) -> str:
    """The name of a variable, e.g. "layer2.0.conv1.weight"."""
    _, *modules, leaf = path
    unit = re.fullmatch(r"stage(\d+)_unit(\d+)", modules[0])
    prefix = f"layer{unit[1]}.{int(unit[2]) - 1}." if unit else ""
    names = {
        "stem": "conv1",
        "stem_norm": "bn1",
        "classifier": layout.classifier,
        "projection": f"{layout.projection}.0",
        "projection_norm": f"{layout.projection}.1",
    }
    module = names.get(modules[-1], modules[-1].replace("norm", "bn"))
    return f"{prefix}{module}.{_LEAVES.get(leaf, leaf)}"


def _permuted(shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape of what has this shape here."""
    return tuple(shape[axis] for axis in _AXES[len(shape)])


def _from_torch_axes(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor.transpose(np.argsort(_AXES[tensor.ndim])), np.float32)


def _counter_beside(running_var: str) -> str:
    return running_var.removesuffix("running_var") + _COUNTER
