"""Sizes of activations and gradients along the depth of a net (v1 §1 and §4.1)."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.models.resnet import ResidualBlock, ResNet
from resnet_jax.studies.hooks import changed, tap


class Signals(NamedTuple):
    """Sizes along a net, from its first unit to its last; arrays are [units].

    Attributes:
      units: their names.
      layers: the number of the last convolution of each, counted from the stem, which is 1.
      activation: root mean square of the unit's output.
      gradient: norm of one example's loss gradient with respect to the unit's output, as the root
        mean square over examples.
      weight_gradient: norm of the mean loss's gradient with respect to the unit's kernels.
    """

    units: tuple[str, ...]
    layers: np.ndarray
    activation: np.ndarray
    gradient: np.ndarray
    weight_gradient: np.ndarray

    @property
    def layers_between(self) -> int:
        return int(self.layers[-1] - self.layers[0])

    @property
    def ratio(self) -> float:
        """The gradient at the first unit over that at the last: far below 1 it vanishes."""
        return float(self.gradient[0] / self.gradient[-1])


def measure(model: ResNet, variables: Any, images: np.ndarray, labels: np.ndarray) -> Signals:
    """Sends one batch forward and its loss backward, in training (the batch's own statistics).

    Args:
      images: [batch, height, width, channels], normalised.
      labels: int [batch].
    """
    activation, norms, weights = jax.device_get(_measure(model, variables, images, labels))
    per_unit = (model.architecture.depth - 2) // model.architecture.num_blocks
    layers = 1 + per_unit * np.arange(1, model.architecture.num_blocks + 1)
    # Of the mean loss: an example's own gradient is the batch's size times its part.
    return Signals(model.block_names, layers, activation, norms * math.sqrt(len(images)), weights)


@partial(jax.jit, static_argnums=0)
def _measure(model, variables, images, labels):
    meters = jnp.zeros(len(model.block_names))

    def loss(params, meters):
        """The mean loss, and what the units put out; gradients of `meters` are those norms."""
        sizes = {}

        def metered(unit, _, y):
            place = model.block_names.index(unit.name)
            sizes[unit.name] = jnp.sqrt((y.astype(jnp.float32) ** 2).mean())
            return tap(y, meters[place])

        with changed(ResidualBlock, "__call__", metered):
            logits, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), jnp.stack([sizes[name] for name in model.block_names])

    (weights, norms), activation = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], meters
    )
    kernels = [
        [part["kernel"] for part in weights[name].values() if "kernel" in part]
        for name in model.block_names
    ]
    return activation, norms, jnp.stack([optax.global_norm(unit) for unit in kernels])
