"""How strongly each layer responds (v1 §4.2, Figure 7)."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.resnet import ResNet
from resnet_jax.studies.batches import mean_over


class Responses(NamedTuple):
    """Of the 3×3 layers in order, the stem's first: names and standard deviations [layers]."""

    layers: tuple[str, ...]
    std: np.ndarray


def measure(model: ResNet, variables: Any, images: np.ndarray) -> Responses:
    """Standard deviation of each 3×3 layer's response.

    A response is the convolution's output after its batch norm, before activation and addition;
    where none follows the convolution (v2's full pre-activation, or nets without batch norm) it is
    the convolution's own. The deviation is over examples, places and channels together.

    Args:
      images: [examples, height, width, channels], normalised.
    """
    moments = mean_over(lambda part: _moments(model, variables, part), images)
    return Responses(
        layers(model, variables), np.sqrt(np.maximum(moments[:, 1] - moments[:, 0] ** 2, 0.0))
    )


def layers(model: ResNet, variables: Any) -> tuple[str, ...]:
    """Names of the 3×3 layers in the order of the net: "stem", "stage1_unit1/conv1", …"""
    params = variables["params"]
    return (
        "stem",
        *(
            f"{unit}/{name}"
            for unit in model.block_names
            for name in sorted(params[unit])
            if re.fullmatch(r"conv\d", name) and params[unit][name]["kernel"].shape[0] == 3
        ),
    )


@partial(jax.jit, static_argnums=0)
def _moments(model, variables, images) -> jax.Array:
    """[layers, 2], mean and mean square."""
    responses = [r.astype(jnp.float32) for r in _captured(model, variables, images)]
    return jnp.stack([jnp.stack([r.mean(), (r * r).mean()]) for r in responses])


def _captured(model: ResNet, variables: Any, images: jax.Array) -> list[jax.Array]:
    """The response of each of `layers`."""
    _, captured = model.apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, method: (
            method == "__call__" and isinstance(module, nn.Conv | BatchNorm)
        ),
        mutable=["intermediates"],
    )
    outputs = captured["intermediates"]
    found = []
    for layer in layers(model, variables):
        unit, _, conv = layer.rpartition("/")
        norm = conv.replace("conv", "norm") if unit else "stem_norm"
        place = outputs[unit] if unit else outputs
        found.append(place[norm if norm in place else conv]["__call__"][0])
    return found
