"""What passes through a net's shortcuts alone (v2 §3).

With x_{l+1} = λ_l·x_l + F(x_l), the gradient at unit l is that at unit L times Π λ_i, plus what
came through the branches (v2 eq. 8): unless every λ is 1, the product vanishes or explodes with
the number of units.

An activation on that way is not counted, as v2's analysis has f(x) = x: v1's units end with a ReLU
after the addition, and where one of them is off, no gradient passes in truth. That an identity
shortcut's factor is 1 holds for them by this construction, not by measurement.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import ORDERS
from resnet_jax.models.residual import Layers, ResidualUnit
from resnet_jax.models.resnet import ResNet
from resnet_jax.studies.hooks import changed, changed_input, tap


class Factors(NamedTuple):
    """Of units that keep their input's shape, from the last unit to the first; all [units].

    Attributes:
      units: places of these units in the net, from 0.
      measured: what the unit's shortcut multiplies a gradient's norm by.
      predicted: the same from the architecture and the weights alone; NaN where the gate's or
        projection's is not known without the data.
    """

    units: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


def measure(
    model: ResNet, variables: Any, images: np.ndarray, labels: np.ndarray, seed: int = 0
) -> Factors:
    """Sends the loss gradient back through the shortcuts only, in training.

    Branches and gates take part in the forward pass and let no gradient through, and neither does
    the activation after an addition change it: v2's analysis has f(x) = x. The units that change
    the shape are left out: option A loses the gradient of the channels that it adds.

    Predictions: 1 for the identity; `shortcut_scale`; 1 − σ(gate bias), the gates' value at zero
    weights; for dropout, of values that survive and are divided by their share, the root mean
    square √(1/(1−p)); for 1×1 convolutions (option C), that of a random direction, ‖W‖_F/√channels,
    with its batch norm's scale over the standard deviation in `variables`.

    Raises:
      InputError: a plain net.
    """
    if model.architecture.shortcut == "none":
        raise InputError("shortcut='none': a plain net has no shortcuts")
    norms = jax.device_get(_norms(model, variables, images, labels, seed))
    names = model.unit_names
    kept = [place for place, name in enumerate(names) if _keeps_shape(model, name)]
    # norms[l] is the gradient's at the input of unit l, norms[l + 1] at its output.
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = norms[:-1] / norms[1:]
    places = np.array(kept[::-1], int)
    predicted = np.array([_predicted(model, variables, names[place]) for place in places])
    # Where nothing arrives, nothing is left to multiply.
    return Factors(places, np.nan_to_num(measured[places]), predicted)


def not_counted(model: ResNet) -> str:
    """The activations on the way through the shortcuts, which `measure` leaves out; "" for none."""
    net = model.architecture
    order, name = ORDERS[net.order], {"relu": "ReLU"}.get(net.activation, net.activation)
    places = {
        "after each addition": "activation" in order.after,
        "before each projection": net.option == "C" and "activation" in order.before,
    }
    found = [f"the {name} {place}" for place, there in places.items() if there]
    return "" if net.activation == "linear" else " and ".join(found)


def _keeps_shape(model: ResNet, unit: str) -> bool:
    first = unit.endswith("_unit1")
    return not first or (unit == "stage1_unit1" and model.architecture.block != "bottleneck")


@partial(jax.jit, static_argnums=(0, 4))
def _norms(model, variables, images, labels, seed) -> jax.Array:
    """Norms of the gradient at each unit's input, and at the last one's output."""
    names = model.unit_names
    blocked = lambda unit, _, y: jax.lax.stop_gradient(y)
    straight = lambda layers, x, y: x + jax.lax.stop_gradient(y - x)

    def loss(meters):
        """The mean loss; gradients of `meters` are the norms of what the shortcuts pass on."""
        entered = lambda unit, x: tap(x, meters[names.index(unit.name)])
        left = lambda unit, _, y: tap(y, meters[-1]) if unit.name == names[-1] else y
        with (
            changed_input(ResidualUnit, "__call__", entered),
            changed(ResidualUnit, "__call__", left),
            changed(ResidualUnit, "branch", blocked),
            changed(ResidualUnit, "gate", blocked),
            changed(Layers, "activate", straight),
        ):
            logits, _ = model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(seed)},
            )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.grad(loss)(jnp.zeros(len(names) + 1))


def _predicted(model: ResNet, variables: Any, unit: str) -> float:
    net, params = model.architecture, variables["params"][unit]
    if net.option == "C":
        kernel = np.asarray(params["projection"]["kernel"], np.float64)[0, 0]
        if "projection_norm" in params:
            var = np.asarray(variables["batch_stats"][unit]["projection_norm"]["var"], np.float64)
            kernel = kernel * np.asarray(params["projection_norm"]["scale"]) / np.sqrt(var + 1e-5)
        return float(np.linalg.norm(kernel) / math.sqrt(kernel.shape[1]))
    gate = 1 - 1 / (1 + math.exp(-net.gate_bias))
    return {
        "identity": 1.0,
        "constant_scaling": net.shortcut_scale,
        "exclusive_gating": gate,
        "shortcut_only_gating": gate,
        "dropout": math.sqrt(1 / (1 - net.dropout_rate)),
    }[net.shortcut]
