"""The solution by construction (v1 §1): a deeper net that computes what a shallower one does.

"The added layers are identity mapping, and the other layers are copied from the learned shallower
model. The existence of this constructed solution indicates that a deeper model should produce no
higher training error than its shallower counterpart."
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.batch_norm import EPSILON
from resnet_jax.models.residual import ResidualUnit
from resnet_jax.models.resnet import ResNet
from resnet_jax.studies.hooks import changed

_ENDS = {"one_layer": "1", "basic": "2", "bottleneck": "3"}  # number of a branch's last layer


def deepen(
    shallow: ResNet, variables: Any, deep: ResNet, images: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Variables with which `deep` computes what `shallow` does with `variables`.

    The units that are added to each stage pass their input on. In a residual net their branches
    end with zeros: the last batch norm's scale and bias, or the last kernel where no norm follows;
    their other layers are initialised as ever. In a plain net each layer is a delta kernel and a
    batch norm whose scale and bias undo its statistics; these are the input's own, measured on
    `images`, so that the unit passes its input on in training too, up to the difference between
    batches. The ReLU after it changes nothing: a unit's output is not negative.

    Args:
      images: [examples, height, width, channels].

    Raises:
      InputError: `deep` is not `shallow` with more units in each stage, or its units cannot be
        the identity.
    """
    _check(shallow.architecture, deep.architecture)
    fresh = deep.lazy_init(jax.random.key(seed), jnp.asarray(images[:1]), train=False)
    built = jax.tree.map(np.array, {"batch_stats": {}, **fresh})
    for collection, tree in variables.items():
        built[collection].update(jax.tree.map(np.array, dict(tree)))
    moments = jax.device_get(_stage_moments(shallow, variables, images))
    for stage, (mean, var) in enumerate(moments):
        before, after = (net.architecture.stage_sizes[stage] for net in (shallow, deep))
        for number in range(before + 1, after + 1):
            name = f"stage{stage + 1}_unit{number}"
            unit = {collection: tree.get(name, {}) for collection, tree in built.items()}
            if deep.architecture.shortcut == "none":
                _pass_through(unit, mean, var)
            else:
                _end_with_zeros(unit, deep.architecture)
    return built


def _check(shallow: Architecture, deep: Architecture) -> None:
    same = dataclasses.replace(shallow, stage_sizes=deep.stage_sizes) == deep
    sizes = list(zip(shallow.stage_sizes, deep.stage_sizes, strict=False))
    if (
        not same
        or len(shallow.stage_sizes) != len(deep.stage_sizes)
        or any(a > b for a, b in sizes)
    ):
        raise InputError(
            f"a net of {deep.depth} layers: not the net of {shallow.depth} layers with units added"
        )
    if deep.shortcut == "none":
        allowed = {"order": "original", "activation": "relu"}
        if deep.block == "bottleneck":
            raise InputError("block='bottleneck': a plain bottleneck is not the identity")
    else:
        allowed = {"shortcut": "identity"}
        if deep.option == "C":
            raise InputError("option='C': a unit with a projection is not the identity")
        if deep.order == "bn_after_add":
            raise InputError("order='bn_after_add': a unit that ends with it is not the identity")
        if deep.order == "original" and deep.activation not in ("relu", "linear"):
            raise InputError(
                f"activation={deep.activation!r}: a unit that ends with it is not the identity"
            )
    for field, value in allowed.items():
        if getattr(deep, field) != value:
            raise InputError(
                f"{field}={getattr(deep, field)!r}: such units cannot be the identity; "
                f"those with {field}={value!r} can"
            )


@partial(jax.jit, static_argnums=0)
def _stage_moments(model, variables, images) -> list[tuple[jax.Array, jax.Array]]:
    """Mean and variance of each stage's output, by channel."""
    moments = {}

    def measured(unit, _, y):
        stage = int(unit.name.removeprefix("stage").split("_")[0])
        moments[stage] = y.mean((0, 1, 2)), y.var((0, 1, 2))
        return y

    with changed(ResidualUnit, "__call__", measured):
        model.apply(variables, images, train=False)
    return [moments[stage] for stage in sorted(moments)]


def _pass_through(unit: dict[str, Any], mean: np.ndarray, var: np.ndarray) -> None:
    """Makes every layer of a plain unit the identity, in place."""
    for name, layer in unit["params"].items():
        if "kernel" in layer:
            height, width, channels, _ = layer["kernel"].shape
            layer["kernel"] = np.zeros_like(layer["kernel"])
            layer["kernel"][height // 2, width // 2] = np.eye(channels)
            if "bias" in layer:
                layer["bias"] = np.zeros_like(layer["bias"])
        else:
            layer["scale"], layer["bias"] = np.sqrt(var + np.float32(EPSILON)), np.array(mean)
            unit["batch_stats"][name] = {"mean": np.array(mean), "var": np.array(var)}


def _end_with_zeros(unit: dict[str, Any], architecture: Architecture) -> None:
    """Makes a branch add nothing, in place."""
    params, end = unit["params"], _ENDS[architecture.block]
    last = params.get(f"norm{end}", params[f"conv{end}"])
    for name in last:
        last[name] = np.zeros_like(last[name])
