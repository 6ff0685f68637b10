"""Do gradients vanish or explode on their way back through a network? (v1 §1, §4.1)"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from resnet_jax.models.architecture import BLOCKS
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import block_output, grad_norm_probe, training_loss
from resnet_jax.studies.networks import Network, Variables, expand, train_on
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, listed

VARIANTS = tuple(
    {"activation": activation, "norm": norm}
    for activation in ("relu", "tanh", "sigmoid")
    for norm in ("batch", "none")
)

VANISHED, EXPLODED = 1e-3, 1e3
"""Of the gradient at a block over that at the last one: what counts as vanished or exploded."""

_WORDS = {
    "vanished": "vanish",
    "faded": "vanish in the middle",
    "exploded": "explode",
    "swollen": "explode in the middle",
    "healthy": "neither vanish nor explode",
    "lost": "are zero or not finite",
}
_PADDED = 7.0
"""Of a 3×3 kernel's nine taps that lie inside the last stage's maps on average: fewer are told."""

_COLUMNS = (
    ("gradient", "Gradient of the signal", "gradient norm"),
    ("weight_gradient", "Gradient of the weights", "gradient norm of a block's kernels"),
    ("activation", "Activation", "root mean square"),
)


class Signals(NamedTuple):
    """Sizes along a network, from its first block to its last; arrays are [blocks].

    Attributes:
      blocks: their names.
      layers: the number of the last convolution of each, counted from the stem, which is 1.
      activation: root mean square of the block's output.
      gradient: norm of one example's loss gradient with respect to the block's output, as the root
        mean square over examples.
      weight_gradient: norm of the mean loss's gradient with respect to the block's kernels.
    """

    blocks: tuple[str, ...]
    layers: np.ndarray
    activation: np.ndarray
    gradient: np.ndarray
    weight_gradient: np.ndarray

    @property
    def layers_between(self) -> int:
        return int(self.layers[-1] - self.layers[0])

    @property
    def ratio(self) -> float:
        """The gradient at the first block over that at the last: far below 1 it vanishes."""
        return float(self.gradient[0] / self.gradient[-1])


def signals(model: ResNet, variables: Any, images: np.ndarray, labels: np.ndarray) -> Signals:
    """Sends one batch forward and its loss backward, in training (the batch's own statistics).

    Args:
      model: of which the blocks' outputs are looked at.
      variables: its parameters and statistics.
      images: [batch, height, width, channels], normalised.
      labels: int [batch].
    """
    activation, norms, weights = jax.device_get(_signals(model, variables, images, labels))
    per_block = BLOCKS[model.architecture.block]
    layers = 1 + per_block * np.arange(1, model.architecture.num_blocks + 1)
    # Of the mean loss: an example's own gradient is the batch's size times its part.
    return Signals(model.block_names, layers, activation, norms * math.sqrt(len(images)), weights)


@partial(jax.jit, static_argnums=0)
def _signals(model, variables, images, labels):
    probes = jnp.zeros(len(model.block_names))

    def loss(params, probes):
        """The mean loss, and what the blocks put out; gradients of `probes` are those norms."""
        sizes = {}

        def probed(block, _, y):
            place = model.block_names.index(block.name)
            sizes[block.name] = jnp.sqrt((y.astype(jnp.float32) ** 2).mean())
            return grad_norm_probe(y, probes[place])

        with block_output(probed):
            mean = training_loss(model, {**variables, "params": params}, images, labels)
        return mean, jnp.stack([sizes[name] for name in model.block_names])

    (weights, norms), activation = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], probes
    )
    kernels = [
        [part["kernel"] for part in weights[name].values() if "kernel" in part]
        for name in model.block_names
    ]
    return activation, norms, jnp.stack([optax.global_norm(block) for block in kernels])


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    variants: bool = False,
    image_size: int = 0,
    steps: int = 0,
    seeds: int = 1,
) -> pd.DataFrame:
    """A row a block and state: at the start, and at every checkpoint.

    `variants` are ReLU, tanh and sigmoid with and without batch norm. With `image_size` images are
    resized (bilinear) to so many pixels a side: on small ones zero padding alone shrinks a signal.
    `steps` > 0 also trains untrained networks so long, of which there are `seeds`.
    """
    rows = []
    for network in tracker("networks")(expand(networks, seeds, VARIANTS if variants else ())):
        images, labels = network.images(split, examples)
        if image_size:
            shape = (len(images), image_size, image_size, images.shape[-1])
            images = np.asarray(jax.image.resize(images, shape, "linear"))
        pixels = {"image_size": images.shape[1], "map_size": _map_size(network.model, images)}
        for step, variables in _states(network, steps, tracker):
            found = signals(network.model, variables, images, labels)
            columns = zip(*found[:2], *(array.tolist() for array in found[2:]), strict=True)
            rows += [
                {**network.about(step), "begins": network.begins, **pixels, "block": block,
                 "layer": int(layer), "activation": activation, "gradient": gradient,
                 "weight_gradient": weight_gradient}
                for block, layer, activation, gradient, weight_gradient in columns
            ]  # fmt: skip
    return pd.DataFrame(rows)


def _map_size(model: ResNet, images: np.ndarray) -> int:
    """Height of the last stage's maps."""
    key = jax.random.key(0)
    forward = lambda images: model.init_with_output(key, images, features=True)[0]
    return jax.eval_shape(forward, images[:1])[-1].shape[1]


def _states(network: Network, steps: int, tracker: Tracker) -> Iterator[tuple[int, Variables]]:
    """The weights at the start and at every checkpoint, or after a short training."""
    for step in sorted({0, *network.steps}):
        yield step, network.at(step)
    if steps and not network.steps:
        trained, _ = train_on(network, network.initial(), steps, steps, tracker(network.label))
        yield steps, trained


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """A row of panels for each state that was looked at: at the start, and after training."""
    last = table.groupby(["network", "seed"])["step"].transform("max")
    moments = {
        "at the start": table[table["step"] == 0],
        "trained": table[(table["step"] == last) & (table["step"] > 0)],
    }
    return [
        [
            tables.line_panel(
                f"{title}, {moment}", own, "layer", column, xlabel="layer", ylabel=words, log=True
            )
            for column, title, words in _COLUMNS
        ]
        for moment, own in moments.items()
        if len(own)
    ]


def summarize(table: pd.DataFrame) -> list[str]:
    """Of each network the first and the last state, and that between in which least arrives.

    Of plain networks that were looked at trained, too, whether gradients vanish at any step.
    """
    sentences: list[str] = []
    trained: dict[tuple[str, str], list[str]] = {}
    for name, own in by(table, "network"):
        states = dict(by(own, "step"))
        ratios = {step: tables.geometric_mean(_ratios(state)) for step, state in states.items()}
        faintest = min(ratios, key=lambda step: np.nan_to_num(ratios[step].mean))
        size = own["image_size"].iloc[0]
        for step in sorted({min(states), faintest, max(states)}):
            when = own["begins"].iloc[0] if step == 0 else f"at step {step:,}"
            lead = f"{name} ({tables.num_seeds(states[step])}, {size}×{size} images) {when}"
            sentences.append(f"{lead}: {describe(states[step])}")
        if own["family"].iloc[0] == "plain" and max(states) > 0:
            steps = listed(f"{step:,}" for step in sorted(states))
            trained.setdefault((steps, _when_gone(states)), []).append(name)
    for (steps, gone), names in trained.items():
        sentences.append(f"In {listed(names)}, looked at after {steps} steps, gradients {gone}.")
    for (size, maps), _ in by(table, "image_size", "map_size"):
        inside = ((3 * maps - 2) / maps) ** 2
        if inside < _PADDED:
            sentences.append(
                f"These are results on {size}×{size} images: on the last stage's {maps}×{maps} "
                f"maps a 3×3 kernel has {inside:.2g} of its 9 taps inside, on average, and the "
                "zero padding shrinks what passes. --set=image_size=32 measures on larger ones."
            )
    return sentences


def _when_gone(states: dict[int, pd.DataFrame]) -> str:
    """E.g. "vanish after 80 and 100 in some seed"."""
    found = {step: {verdict(part) for _, part in by(states[step], "seed")} for step in states}
    some = " in some seed" if any(own["seed"].nunique() > 1 for own in states.values()) else ""
    parts = []
    for kinds, word in (({"vanished", "faded"}, "vanish"), ({"lost"}, _WORDS["lost"])):
        if steps := [f"{step:,}" for step in sorted(states) if found[step] & kinds]:
            parts.append(f"{word} after {listed(steps)}{some}")
    return " and ".join(parts) or "vanish after none of them"


def _ratios(state: pd.DataFrame) -> list[float]:
    """First block over last, a seed each; 0 where nothing arrives."""
    ends = [(part["gradient"].iloc[0], part["gradient"].iloc[-1]) for _, part in by(state, "seed")]
    return [first / last if last else 0.0 for first, last in ends]


def describe(state: pd.DataFrame) -> str:
    """E.g. "gradients vanish: from the last block back to the first their norm changes by …"."""
    verdicts = [verdict(part) for _, part in by(state, "seed")]
    lead = f"gradients {_WORDS[verdicts[0]]}"
    if len(set(verdicts)) > 1:
        counts = (f"{_WORDS[one]} in {verdicts.count(one)}" for one in dict.fromkeys(verdicts))
        lead = f"gradients {listed(counts)} of {len(verdicts)} seeds"
    kept = [part for _, part in by(state, "seed") if verdict(part) != "lost"]
    if not kept:
        return f"{lead}: nothing arrives."
    # A norm that is too small for a float is passed over for the first one that is not.
    reached = [part[part["gradient"] > 0] for part in kept]
    found = tables.geometric_mean(
        part["gradient"].iloc[0] / part["gradient"].iloc[-1] for part in reached
    )
    layers = max(int(part["layer"].iloc[-1] - part["layer"].iloc[0]) for part in reached)
    a_layer = found.mean ** (1 / layers) if layers else 1.0
    whole = sum(map(len, reached)) == sum(map(len, kept))
    rest = "" if whole else " and is too small for a float before that"
    for middle, extreme in (("faded", min), ("swollen", max)):
        if middle in verdicts:
            most = extreme(extreme(part["gradient"]) / part["gradient"].iloc[-1] for part in kept)
            rest += f", and on the way by up to ×{number(most)}"
    return (
        f"{lead}: from the last block back to the first their norm changes by "
        f"×{found.text(number)} over {layers} layers, ×{a_layer:.3g} a layer{rest}."
    )


def verdict(one: pd.DataFrame) -> str:
    """One seed's, a key of `_WORDS`: what most or least arrives at any block, over the last one's.

    "lost" where nothing leaves the last block, or a norm is not finite.
    """
    gradients = one["gradient"]
    first, last = gradients.iloc[0], gradients.iloc[-1]
    if not (last > 0 and np.isfinite(gradients).all()):
        return "lost"
    if gradients.min() <= VANISHED * last:
        return "vanished" if first <= VANISHED * last else "faded"
    if gradients.max() >= EXPLODED * last:
        return "exploded" if first >= EXPLODED * last else "swollen"
    return "healthy"
