"""Looks into a network and changes what passes between its layers, without touching the model.

Also: means over many examples, a few at a time, and a network in double precision.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from resnet_jax.models.resnet import ConvNormAct, ResidualBlock, ResNet

Change = Callable[[nn.Module, jax.Array, jax.Array], jax.Array]

AT_ONCE = 250  # examples


@contextlib.contextmanager
def changed(kind: type[nn.Module], method: str, change: Change) -> Iterator[None]:
    """Within, `method` of modules of that kind returns `change(module, first_argument, output)`."""

    def interceptor(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == method and isinstance(context.module, kind):
            return change(context.module, args[0], output)
        return output

    with nn.intercept_methods(interceptor):
        yield


# Each changes what one method returns, given `change`.
block_output = partial(changed, ResidualBlock, "__call__")
branch_output = partial(changed, ResidualBlock, "residual_branch")
gate_output = partial(changed, ResidualBlock, "gate")  # of a gated shortcut
activation_output = partial(changed, ConvNormAct, "activate")


@contextlib.contextmanager
def block_input(change: Callable[[nn.Module, jax.Array], jax.Array]) -> Iterator[None]:
    """Within, each block gets `change(block, x)` for its input `x`."""

    def interceptor(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, ResidualBlock):
            args = (change(context.module, args[0]), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


def training_loss(
    model: ResNet, variables: Any, images: jax.Array, labels: jax.Array, seed: int = 0
) -> jax.Array:
    """The mean cross-entropy, float32 [], of a batch in training: its own statistics.

    Args:
      model, variables: the network.
      images: float [batch, height, width, channels], normalised.
      labels: int [batch].
      seed: of dropout.
    """
    logits, _ = model.apply(
        variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(seed)},
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.custom_vjp
def grad_norm_probe(x: jax.Array, probe: jax.Array) -> jax.Array:
    """Returns `x`, of any shape; the gradient for `probe`, float32 [], is ‖gradient of x‖.

    So the size of a gradient deep inside a network comes out of one backward pass, and no gradient
    of an activation need be kept.
    """
    return x


def _probe_backward(_, gradient):
    values = gradient.astype("float32")
    # Scaled, because the squares of a vanishing gradient are 0 long before it is.
    largest = jnp.maximum(jnp.abs(values).max(), jnp.finfo("float32").tiny)
    return gradient, largest * jnp.sqrt(((values / largest) ** 2).sum())


grad_norm_probe.defvjp(lambda x, probe: (x, None), _probe_backward)


@contextlib.contextmanager
def double_precision(model: ResNet, variables: Any) -> Iterator[tuple[ResNet, Any]]:
    """Within, JAX computes in float64; gives the network and its variables so."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        yield model.clone(dtype=jnp.float64), jax.device_put(wide)


def batches(*arrays: np.ndarray, at_once: int = AT_ONCE) -> Iterator[tuple[np.ndarray, ...]]:
    """Parts of nearly equal size, of at most `at_once` examples: no more than two sizes."""
    parts = math.ceil(len(arrays[0]) / at_once)
    yield from zip(*(np.array_split(array, parts) for array in arrays), strict=True)


def mean_over(
    function: Callable[..., Any], *arrays: np.ndarray, at_once: int = AT_ONCE
) -> np.ndarray:
    """The mean over all examples of `function(*part)`, itself a mean over the part's examples.

    `arrays` are [examples, …]; a part has at most `at_once` of them. In float64.
    """
    total: Any = 0.0
    for part in batches(*arrays, at_once=at_once):
        value = jax.device_get(function(*part))
        total = total + len(part[0]) * np.asarray(value, np.float64)
    return total / len(arrays[0])
