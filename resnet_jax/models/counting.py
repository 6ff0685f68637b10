"""Parameters and multiply-adds of a network, from its traced computation; nothing is compiled."""

import math
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import linen as nn


class Count(NamedTuple):
    """Sizes of a network.

    Attributes:
      num_params: trained numbers; batch norm's running statistics are not.
      multiply_adds: of convolutions and matrix products for one image; the papers' "FLOPs".
    """

    num_params: int
    multiply_adds: int


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> Count:
    """Counts a model's parameters and its multiply-adds for one image [height, width, channels]."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Initialisation runs the forward pass: one trace tells both.
    init = lambda images: model.init(jax.random.key(0), images, train=False)
    jaxpr, variables = jax.make_jaxpr(init, return_shape=True)(images)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return Count(params, _multiply_adds(jaxpr.jaxpr))


def _multiply_adds(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            out_channels = equation.params["dimension_numbers"].rhs_spec[0]
            per_output = math.prod(kernel.shape) // kernel.shape[out_channels]
            total += math.prod(equation.outvars[0].aval.shape) * per_output
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            per_output = math.prod(shape[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * per_output
        for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                total += _multiply_adds(getattr(value, "jaxpr", value))
    return total


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr)
