"""Looks into a network, and changes what passes between its layers, without touching the model."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn

Change = Callable[[nn.Module, jax.Array, jax.Array], jax.Array]


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


@contextlib.contextmanager
def changed_input(
    kind: type[nn.Module], method: str, change: Callable[[nn.Module, jax.Array], jax.Array]
) -> Iterator[None]:
    """Within, `method` of modules of that kind gets `change(module, x)` for its argument `x`."""

    def interceptor(call, args, kwargs, context):
        if context.method_name == method and isinstance(context.module, kind):
            args = (change(context.module, args[0]), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


@jax.custom_vjp
def tap(x: jax.Array, meter: jax.Array) -> jax.Array:
    """Returns `x`; the gradient with respect to the scalar `meter` is ‖gradient of x‖.

    So the size of a gradient deep inside a net comes out of one backward pass, and no gradient of
    an activation need be kept.
    """
    return x


def _tap_backward(_, gradient):
    values = gradient.astype("float32")
    # Scaled, because the squares of a vanishing gradient are 0 long before it is.
    largest = jnp.maximum(jnp.abs(values).max(), jnp.finfo("float32").tiny)
    return gradient, largest * jnp.sqrt(((values / largest) ** 2).sum())


tap.defvjp(lambda x, meter: (x, None), _tap_backward)


def scale_gradient(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns `x`; its gradient is multiplied by `factor`."""
    return jax.lax.stop_gradient(x) + factor * (x - jax.lax.stop_gradient(x))
