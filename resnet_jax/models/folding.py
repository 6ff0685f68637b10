"""The plain network that a reparameterised one is: its branches folded into one kernel a layer."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.models.batch_norm import EPSILON
from resnet_jax.models.resnet import ResNet

Variables = Mapping[str, Any]


def fold(model: ResNet, variables: Variables) -> tuple[ResNet, dict[str, Any]]:
    """The plain network of standard convolutions that computes the same, and its variables.

    One of "dirac" keeps its batch norms, and computes the same in training, too. Those of "repvgg"
    go into kernels and biases (Ding et al. 2021, §3.3), with running statistics: the network has
    norm="none" and computes the same in evaluation.

    Args:
      model: with any `parameterization`; a "standard" one is returned as it is.
      variables: its "params" and "batch_stats".
    """
    found: dict[str, Any] = jax.tree.map(np.asarray, dict(variables))
    axes: dict[str, Any] = {"parameterization": "standard"}
    kind = model.architecture.parameterization
    if kind == "dirac":
        found["params"] = {name: _fold_dirac(block) for name, block in found["params"].items()}
    elif kind == "repvgg":
        axes["norm"] = "none"
        found = {"params": _fold_repvgg(**found)}
    architecture = dataclasses.replace(model.architecture, **axes)
    return model.clone(architecture=architecture), found


def _fold_dirac(block: dict[str, Any]) -> dict[str, Any]:
    """Of a block's parameters, or of another layer's, which stay."""
    folded = {name: layer for name, layer in block.items() if not name.startswith("dirac")}
    for number in {name[5] for name in block if name.startswith("dirac")}:
        kernel = block[f"conv{number}"]["kernel"]
        delta, weight = (block[f"dirac{number}_{part}"]["value"] for part in ("delta", "weight"))
        norm = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        folded[f"conv{number}"] = {"kernel": delta * _delta(kernel.shape) + weight / norm * kernel}
    return folded


def _fold_repvgg(params: Variables, batch_stats: Variables) -> dict[str, Any]:
    """Every convolution with the batch norms that follow it, and those beside it, in one."""
    layers = flatten_dict(params, is_leaf=lambda _, node: "kernel" in node or "scale" in node)
    statistics = flatten_dict(batch_stats, is_leaf=lambda _, node: "mean" in node)
    folded: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    for path, norm in statistics.items():
        *block, name = path
        conv = ("stem",) if name == "stem_norm" else (*block, name.replace("norm", "conv"))
        target = (*block, re.sub("_(1x1|identity)$", "", conv[-1]))
        shape = layers[target]["kernel"].shape
        kernel = layers[conv]["kernel"] if conv in layers else _delta(shape)
        around = (shape[0] - kernel.shape[0]) // 2
        kernel = np.pad(kernel, [(around, around)] * 2 + [(0, 0)] * 2)
        factor = layers[path]["scale"] / np.sqrt(norm["var"] + EPSILON)
        part = {"kernel": kernel * factor, "bias": layers[path]["bias"] - norm["mean"] * factor}
        folded[target] = jax.tree.map(np.add, folded[target], part) if target in folded else part
    return unflatten_dict(folded | {("classifier",): layers[("classifier",)]})


def _delta(shape: tuple[int, ...]) -> np.ndarray:
    """The kernel that passes channels on; those that are too many are zero, as in option A."""
    height, width, inputs, outputs = shape
    kernel = np.zeros(shape, np.float32)
    kernel[height // 2, width // 2] = np.eye(inputs, outputs)
    return kernel
