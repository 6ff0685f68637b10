"""What passes through a network's shortcuts alone (v2 §3).

With x_{l+1} = λ_l·x_l + F(x_l), the gradient at block l is that at block L times Π λ_i, plus what
came through the branches (v2 eq. 8): unless every λ is 1, the product vanishes or explodes with
the number of blocks.

An activation on that way is not counted, as v2's analysis has f(x) = x: v1's blocks end with a ReLU
after the addition, and where one of them is off, no gradient passes in truth. That an identity
shortcut's factor is 1 holds for them by this construction, not by measurement.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import ORDERS
from resnet_jax.models.batch_norm import EPSILON
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import hooks, tables
from resnet_jax.studies.hooks import grad_norm_probe
from resnet_jax.studies.networks import Network, expand
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by

V2_TABLE_1 = (
    {"shortcut": "identity"},
    {"shortcut": "constant_scaling", "shortcut_scale": 0.5},
    {"shortcut": "exclusive_gating", "gate_bias": -6.0},
    {"shortcut": "shortcut_only_gating", "gate_bias": 0.0},
    {"shortcut": "shortcut_only_gating", "gate_bias": -6.0},
    {"shortcut": "identity", "option": "C"},
    {"shortcut": "dropout"},
)

GONE, BLOWN_UP = 1e-3, 1e3


class Factors(NamedTuple):
    """Of blocks that keep their input's shape, from the last block to the first; all [blocks].

    Attributes:
      blocks: places of these blocks in the network, from 0.
      measured: what the block's shortcut multiplies a gradient's norm by.
      predicted: the same from the architecture and the weights alone; NaN where the gate's or
        projection's is not known without the data.
    """

    blocks: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


def factors(
    model: ResNet, variables: Any, images: np.ndarray, labels: np.ndarray, seed: int = 0
) -> Factors:
    """Sends the loss gradient back through the shortcuts only, in training.

    `images` are float [batch, height, width, channels], normalised; `labels` int [batch].

    Branches and gates take part in the forward pass and let no gradient through, and neither does
    the activation after an addition change it: v2's analysis has f(x) = x. The blocks that change
    the shape are left out: option A loses the gradient of the channels that it adds.

    Predictions: 1 for the identity; `shortcut_scale`; 1 − σ(gate bias), the gates' value at zero
    weights; for dropout, of values that survive and are divided by their share, the root mean
    square √(1/(1−p)); for 1×1 convolutions (option C), that of a random direction, ‖W‖_F/√channels,
    with its batch norm's scale over the standard deviation in `variables`.

    Raises:
      InputError: a plain network, or one whose blocks all change the shape.
    """
    if model.architecture.shortcut == "none":
        raise InputError("shortcut='none': a plain network has no shortcuts")
    names = model.block_names
    kept = [place for place, name in enumerate(names) if _keeps_shape(model, name)]
    if not kept:
        raise InputError(
            f"a network of {model.architecture.depth} layers: none of its blocks keeps its input's "
            "shape, and only such shortcuts are measured; give a deeper one"
        )
    norms = jax.device_get(_norms(model, variables, images, labels, seed))
    # norms[l] is the gradient's at the input of block l, norms[l + 1] at its output.
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = norms[:-1] / norms[1:]
    places = np.array(kept[::-1], int)
    predicted = np.array([_predicted(model, variables, names[place]) for place in places])
    # Where nothing arrives, nothing is left to multiply.
    return Factors(places, np.nan_to_num(measured[places]), predicted)


def not_counted(model: ResNet) -> str:
    """The activations on the way through the shortcuts, which `factors` leaves out; "" for none."""
    net = model.architecture
    order, name = ORDERS[net.order], {"relu": "ReLU"}.get(net.activation, net.activation)
    places = {
        "after each addition": "activation" in order.after,
        "before each projection": net.option == "C" and "activation" in order.before,
    }
    found = [f"the {name} {place}" for place, there in places.items() if there]
    return "" if net.activation == "linear" else " and ".join(found)


def _keeps_shape(model: ResNet, block: str) -> bool:
    first = block.endswith("_unit1")
    return not first or (block == "stage1_unit1" and model.architecture.block != "bottleneck")


@partial(jax.jit, static_argnums=(0, 4))
def _norms(model, variables, images, labels, seed) -> jax.Array:
    """Norms of the gradient at each block's input, and at the last one's output."""
    names = model.block_names
    blocked = lambda block, _, y: jax.lax.stop_gradient(y)
    straight = lambda layers, x, y: x + jax.lax.stop_gradient(y - x)

    def loss(probes):
        """The mean loss; gradients of `probes` are the norms of what the shortcuts pass on."""
        entered = lambda block, x: grad_norm_probe(x, probes[names.index(block.name)])
        left = lambda block, _, y: grad_norm_probe(y, probes[-1]) if block.name == names[-1] else y
        with (
            hooks.block_input(entered),
            hooks.block_output(left),
            hooks.branch_output(blocked),
            hooks.gate_output(blocked),
            hooks.activation_output(straight),
        ):
            return hooks.training_loss(model, variables, images, labels, seed)

    return jax.grad(loss)(jnp.zeros(len(names) + 1))


def _predicted(model: ResNet, variables: Any, block: str) -> float:
    net, params = model.architecture, variables["params"][block]
    own = net.shortcut_scale
    if "gate" in params:
        own = float(np.mean(1 - jax.nn.sigmoid(params["gate"]["bias"])))
    elif net.shortcut == "dropout":
        own = math.sqrt(1 / (1 - net.dropout_rate))
    if net.option == "C":
        kernel = np.asarray(params["projection"]["kernel"], np.float64)[0, 0]
        if "projection_norm" in params:
            var = np.asarray(variables["batch_stats"][block]["projection_norm"]["var"], np.float64)
            scale = np.asarray(params["projection_norm"]["scale"])
            kernel = kernel * scale / np.sqrt(var + EPSILON)
        own *= float(np.linalg.norm(kernel) / math.sqrt(kernel.shape[1]))
    return own


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    variants: bool = False,
    seeds: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a shortcut that was passed; with `variants`, those of v2 Table 1, untrained.

    Untrained networks have `seeds` initial weights each; `seed` is of the dropout masks.
    """
    rows = []
    for network in tracker("networks")(expand(networks, seeds, V2_TABLE_1 if variants else ())):
        images, labels = network.images(split, examples)
        found = factors(network.model, network.ready(images), images, labels, seed)
        products = [np.cumprod(factor) for factor in (found.measured, found.predicted)]
        about = {**network.about(), "not_counted": not_counted(network.model)}
        rows += [
            {**about, "passed": passed, "block": int(block) + 1, "factor": float(factor),
             "measured": float(measured), "predicted": float(predicted)}
            for passed, (block, factor, measured, predicted) in enumerate(
                zip(found.blocks, found.measured, *products, strict=True), 1
            )
        ]  # fmt: skip
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """The product of the factors, measured and, dotted, predicted."""
    return [
        [tables.line_panel(
            "Product of shortcut factors", table, "passed", "measured", beside="predicted",
            xlabel="shortcuts passed, from the last block back", ylabel="gradient norm, relative",
            log=True)]
    ]  # fmt: skip


def summarize(table: pd.DataFrame) -> list[str]:
    """What is left of a gradient that has passed all shortcuts of each network."""
    return [_sentence(name, own) for name, own in by(table, "network")]


def _sentence(name: str, own: pd.DataFrame) -> str:
    last = own[own["passed"] == own["passed"].max()]
    measured, predicted = (tables.geometric_mean(last[key]) for key in ("measured", "predicted"))
    if measured.mean <= GONE:
        meaning = "the signal vanishes on the shortcuts, and must come through the branches"
    elif measured.mean >= BLOWN_UP:
        meaning = "it explodes on the shortcuts"
    else:
        meaning = "the shortcuts carry it"
    left_out = last["not_counted"].iloc[0]
    without = f", not counting {left_out}," if left_out else ""
    # Where one seed's product is 0 there is no interval of its logarithm.
    shown = number(measured.mean) if measured.mean == 0 else measured.text(number)
    return (
        f"{name} ({tables.num_seeds(own)}): past {last['passed'].iloc[0]} shortcuts{without} a "
        f"gradient's norm is ×{shown} (predicted ×{number(predicted.mean)}): {meaning}."
    )
