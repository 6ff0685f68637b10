"""How strongly each layer responds (v1 §4.2, Figure 7)."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import linen as nn

from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.folding import fold
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import batches
from resnet_jax.studies.networks import Network
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, listed


class Responses(NamedTuple):
    """Of the 3×3 layers in order, the stem's first: names and standard deviations [layers]."""

    layers: tuple[str, ...]
    std: np.ndarray


def responses(model: ResNet, variables: Any, images: np.ndarray) -> Responses:
    """Standard deviation of each 3×3 layer's response.

    A response is the convolution's output after its batch norm, before activation and addition;
    where none follows the convolution (v2's full pre-activation, or networks without batch norm)
    it is the convolution's own. RepVGG's branches are the one layer that they fold into; the learnt
    multipliers of Fixup and SkipInit come later and do not count. The deviation is over examples,
    places and channels together.

    Args:
      model: whose running statistics are used.
      variables: its parameters and statistics.
      images: [examples, height, width, channels], normalised.
    """
    model, variables = fold(model, variables)
    counts, moments = [], []
    for (part,) in batches(images):
        counts.append(len(part))
        moments.append(jax.device_get(_moments(model, variables, part)))
    means, variances = np.moveaxis(np.array(moments, np.float64), 2, 0)
    # Of all examples: the variance within the parts, and that of the parts' means. A mean square
    # less the squared mean would lose a small deviation beside a large mean.
    middle = np.average(means, axis=0, weights=counts)
    total = np.average(variances + (means - middle) ** 2, axis=0, weights=counts)
    return Responses(layers(model, variables), np.sqrt(total))


def layers(model: ResNet, variables: Any) -> tuple[str, ...]:
    """Names of the 3×3 layers in the order of the network: "stem", "stage1_unit1/conv1", …"""
    params = variables["params"]
    return (
        "stem",
        *(
            f"{block}/{name}"
            for block in model.block_names
            for name in sorted(params[block])
            if re.fullmatch(r"conv\d", name) and params[block][name]["kernel"].shape[0] == 3
        ),
    )


@partial(jax.jit, static_argnums=0)
def _moments(model, variables, images) -> jax.Array:
    """[layers, 2], mean and variance."""
    outputs = [r.astype(jnp.float32) for r in _captured(model, variables, images)]
    return jnp.stack([jnp.stack([r.mean(), r.var()]) for r in outputs])


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
        block, _, conv = layer.rpartition("/")
        norm = conv.replace("conv", "norm") if block else "stem_norm"
        place = outputs[block] if block else outputs
        found.append(place[norm if norm in place else conv]["__call__"][0])
    return found


def measure(
    networks: Sequence[Network], tracker: Tracker, *, examples: int = 256, split: str = "test"
) -> pd.DataFrame:
    """A row a layer: its number, name and standard deviation."""
    rows = []
    for network in tracker("networks")(networks):
        images, _ = network.images(split, examples)
        found = responses(network.model, network.ready(images), images)
        rows += [
            {**network.about(), "layer": place, "name": name, "std": float(std)}
            for place, (name, std) in enumerate(zip(found.layers, found.std, strict=True), 1)
        ]
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """In the order of the layers, and sorted, as v1 Figure 7 has them."""
    how = {"x": "layer", "y": "std", "ylabel": "std of the response"}
    return [
        [
            tables.line_panel("By layer", table, xlabel="3×3 layer", **how),
            tables.line_panel("By size", _sorted(table), xlabel="3×3 layers, sorted", **how),
        ]
    ]  # fmt: skip


def summarize(table: pd.DataFrame) -> list[str]:
    """The mean response of each network; residual beside plain, deep beside shallow (v1 Fig. 7)."""
    level = {
        name: own.groupby("seed", sort=False)["std"].mean() for name, own in by(table, "network")
    }
    means = (
        f"{name} {tables.mean(values).text('{:.2f}'.format)}" for name, values in level.items()
    )
    sentences = [
        f"Mean standard deviation of the layers' responses: {listed(means)} ({_seeds(table)})."
    ]
    family = dict(zip(table["network"], table["family"], strict=True))
    pairs = [(residual, plain) for plain, residual in tables.twins(table)]
    pairs += [
        (deep, shallow)
        for shallow, deep in tables.pairs_by_family(table)
        if family[deep] != "plain"
    ]
    undecided = []
    for name, other in pairs:
        found = tables.ratio(level[name], level[other])
        if found is None:
            undecided.append(f"{name} and {other}")
        else:
            sentences.append(_compare(name, other, found))
    if undecided:
        sentences.append(
            f"Which of two networks responds more is told from {tables.ENOUGH} seeds of each; here "
            f"it stays open of {listed(undecided)}."
        )
    return sentences


def _compare(name: str, other: str, found: tables.Interval) -> str:
    """v1 expects the first to respond less."""
    times = f"(×{found.text('{:.2f}'.format)}, 95% interval)"
    if found.high < 1:
        return f"{name}'s layers respond less than {other}'s {times}, as in v1 Figure 7."
    if found.low > 1:
        return f"{name}'s layers respond more than {other}'s {times}, unlike v1's."
    return f"Whether {name}'s layers respond less than {other}'s is undecided {times}."


def _seeds(table: pd.DataFrame) -> str:
    counts = {tables.num_seeds(own) for _, own in by(table, "network")}
    if len(counts) == 1:
        return f"{counts.pop()} each" if table["network"].nunique() > 1 else counts.pop()
    return listed(f"{name} {tables.num_seeds(own)}" for name, own in by(table, "network"))


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for _, own in by(table, "network", "seed"):
        own = own.sort_values("std", ascending=False, kind="stable")
        parts.append(own.assign(layer=range(1, len(own) + 1)))
    return pd.concat(parts)
