"""How alike the gradients of different inputs are (Balduzzi et al. 2017, "The Shattered Gradients
Problem").
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from resnet_jax.errors import InputError
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel
from resnet_jax.studies import tables
from resnet_jax.studies.networks import Network
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, listed

_KINDS = (("nearby", "Nearby images"), ("unrelated", "Different images"))

SHATTERED = 0.5
"""Of the shallowest network's correlation: less than that at the deepest counts as shattered."""

SHATTERED_ALREADY = 0.1
"""A correlation of the shallowest network of which nothing is left to lose."""

NOISE = 2.0
"""Standard errors: a mean correlation below so many is not told from zero."""


class Correlation(NamedTuple):
    """Mean cosines between input gradients; and the cosines between the inputs themselves.

    Attributes:
      nearby, nearby_inputs: of pairs a small step apart.
      unrelated, unrelated_inputs: of pairs of different images.
    """

    nearby: float
    unrelated: float
    nearby_inputs: float
    unrelated_inputs: float


def correlation(
    model: ResNet, variables: Any, images: np.ndarray, nearness: float = 0.1, seed: int = 0
) -> Correlation:
    """Cosines between the gradients, with respect to the image, of one random sum of the logits.

    A pair's partner is another image; the nearby partner is `nearness` of the way to it. Batch norm
    uses `variables`' statistics (see `with_statistics_of` for an untrained network), so that
    gradients of different images do not mix.

    Args:
      model: runs in evaluation.
      variables: its parameters and statistics.
      images: [examples, height, width, channels], at least two.
      nearness: of the nearby partner, a fraction.
      seed: of the random sum.
    """
    partners = np.roll(images, 1, axis=0)
    near = (1 - nearness) * images + nearness * partners
    at, close = (np.asarray(_gradients(model, variables, x, seed)) for x in (images, near))
    return Correlation(
        nearby=_cosine(at, close),
        unrelated=_cosine(at, np.roll(at, 1, axis=0)),
        nearby_inputs=_cosine(images, near),
        unrelated_inputs=_cosine(images, partners),
    )


@partial(jax.jit, static_argnums=(0, 3))
def _gradients(model, variables, images, seed) -> jax.Array:
    weights = jax.random.normal(jax.random.key(seed), (model.num_classes,))
    total = lambda x: (model.apply(variables, x, train=False) @ weights).sum()
    return jax.grad(total)(jnp.asarray(images, jnp.float32))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over examples; an example whose gradient is zero counts as uncorrelated."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.where(norms > 0, norms, 1.0)))


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 128,
    split: str = "train",
    nearness: float = 0.1,
    depths: tuple = (8, 14, 20, 32, 56),
    seeds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a depth and seed, of untrained networks of the same kind, and of trained runs.

    Correlations are averaged over `seeds` initial weights, as Balduzzi et al. do.
    """
    if examples < 2:
        raise InputError(f"examples={examples}: an image's partner is another one; give at least 2")
    data = {(each.recipe.dataset.name, each.recipe.dataset.image_size) for each in networks}
    if len(data) > 1:
        raise InputError(
            "dataset: shattering compares depths on one data set; give networks of one"
        )
    asked: dict[tuple, tuple[str, Network, int]] = {}
    for network in networks:
        name = network.recipe.model.name
        family, own = name.rsplit("-", 1)[0], network.about(0)["depth"]
        line = network.variant().label.replace(name, family)
        others = [network.of_depth(depth) for depth in depths if depth != own]
        kinds = [kind for kind in others if _layers(kind) == _layers(network)]
        if others and not kinds:
            raise InputError(
                f"depths={depths}: {family}-N of these depths are no networks of the kind of "
                f"{name}; give others, as --set='depths=(18,34)' for resnet-18"
            )
        for kind in (*kinds, network.variant()):
            for each in kind.with_seeds(seeds):
                key: tuple = (line, each.label, each.recipe.seed)
                asked.setdefault(key, (f"{line}, untrained", each, 0))
        if network.steps:
            key = (line, network.label, network.recipe.seed, "trained")
            asked[key] = (f"{line}{network.told}, trained", network, network.last_step)
    rows = []
    for line, network, step in tracker("networks")(asked.values()):
        images, _ = network.images(split, examples)
        variables = network.at(step) if step else network.ready(images)
        found = correlation(network.model, variables, images, nearness, seed)
        rows.append(
            {**network.about(step), "model": network.label, "network": line, **found._asdict()}
        )
    return pd.DataFrame(rows).sort_values(["network", "depth", "seed"], kind="stable")


def _layers(network: Network) -> dict[str, Any]:
    """All that its architecture says but the number of blocks."""
    fields = dataclasses.asdict(network.recipe.architecture)
    return {name: value for name, value in fields.items() if name != "stage_sizes"}


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """Correlations against depth: of nearby and of different images."""
    return [
        [tables.line_panel(title, table, "depth", kind, xlabel="layers",
                           ylabel="correlation of gradients", marker=".", level=0)
         for kind, title in _KINDS]
    ]  # fmt: skip


def summarize(table: pd.DataFrame) -> list[str]:
    """How the mean correlation goes with depth; slopes on the depths at which all have one."""
    inputs = table["nearby_inputs"].mean()
    moments = {name: _moments(own) for name, own in by(table, "network")}
    told = [set(own.index[own["mean"] > NOISE * own["error"]]) for own in moments.values()]
    shared = set.intersection(*told)
    sentences = [
        f"Images whose own correlation is {inputs:.2f} have gradients that correlate (means over "
        "seeds of the initial weights, ± one standard error):"
    ]
    for name, own in moments.items():
        values = listed(f"{_value(row)} at {depth} layers" for depth, row in own.iterrows())
        sentences.append(f"{name} ({_seeds(own)}): {values}{_verdict(own, shared)}")
    return sentences


def _moments(own: pd.DataFrame) -> pd.DataFrame:
    """By depth: `mean`, `error` (its standard error, NaN of one seed) and `count`."""
    found = own.groupby("depth")["nearby"].agg(["mean", "std", "count"])
    return found.assign(error=found["std"] / np.sqrt(found["count"]))


def _seeds(own: pd.DataFrame) -> str:
    """How many a depth has, which may be others at each."""
    few, many = own["count"].min(), own["count"].max()
    count = f"{few}" if few == many else f"{few} to {many}"
    return "one seed" if count == "1" else f"{count} seeds"


def _value(row: pd.Series) -> str:
    error = "" if np.isnan(row["error"]) else f" ± {row['error']:.2f}"
    return f"{row['mean']:.2f}{error}"


def _verdict(own: pd.DataFrame, shared: set[int]) -> str:
    if len(own) < 2:
        return "."
    first, last = own.iloc[0], own.iloc[-1]
    if first["mean"] < SHATTERED_ALREADY:
        return f": near zero already at {own.index[0]} layers."
    if own["count"].min() < tables.ENOUGH:
        return f": no verdict from fewer than {tables.ENOUGH} seeds."
    left = last["mean"] - SHATTERED * first["mean"]
    margin = NOISE * np.hypot(last["error"], SHATTERED * first["error"])
    words = "they shatter" if left < 0 else "they do not shatter"
    if abs(left) < margin:
        words = "whether they shatter is undecided"
    text = f": with depth {words}"
    kept = own[own.index.isin(shared)]
    lost = own.index[own["mean"] <= NOISE * own["error"]]
    if len(kept) >= 3:
        geometric = _slope(kept.index.to_numpy(float), kept)
        power = _slope(np.log(kept.index.to_numpy(float)), kept)
        times = tables.Interval(*np.exp(geometric))
        text += (
            f" (from {kept.index[0]} to {kept.index[-1]} layers ×{times.text('{:.3f}'.format)} a "
            f"layer, or depth to the power {power.text('{:.2f}'.format)})"
        )
    if len(lost):
        text += f"; not told from zero at {listed(map(str, lost))} layers, which no slope uses"
    return f"{text}."


def _slope(x: np.ndarray, moments: pd.DataFrame) -> tables.Interval:
    """Of log(mean correlation) on `x` by least squares, with a 95% interval over initial weights.

    Each mean's standard error is carried into its logarithm; that the curve may not be straight is
    no part of the interval.
    """
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slope = float((weights * np.log(moments["mean"])).sum())
    errors = weights * moments["error"] / moments["mean"]
    margin = stats.t.ppf(0.975, moments["count"].min() - 1) * float(np.sqrt((errors**2).sum()))
    return tables.Interval(slope, slope - margin, slope + margin)
