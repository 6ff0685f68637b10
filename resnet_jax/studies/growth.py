"""Is the gradient's growth at the start the cause of degradation? Dose and response.

With batch norm and ReLU the gradient of an untrained plain network grows from each layer to the one
before it, by √(π / (π − 1)) ≈ 1.21 where layers are wide (Yang et al. 2019, "A Mean Field Theory of
Batch Normalization"). The dose of a run is that growth in its first update, the response its final
training error.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from resnet_jax.errors import InputError
from resnet_jax.reporting.style import Panel
from resnet_jax.runs import read_run
from resnet_jax.studies import tables
from resnet_jax.studies.gradients import signals
from resnet_jax.studies.networks import Network, told_apart
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, listed, percent, style

MEAN_FIELD = math.sqrt(math.pi / (math.pi - 1))
"""A layer's growth with batch norm and ReLU, in the limit of infinite width and batch."""

ALIKE = 0.01
"""Growths a layer whose difference is at most this are one dose."""

_LOST = {"diverged": "diverged", "not finished": "is not finished", "": "has no error"}
_FEWEST = 5  # networks, before a correlation is told


def measure(
    networks: Sequence[Network], tracker: Tracker, *, examples: int = 64, split: str = "train"
) -> pd.DataFrame:
    """A row a run: its final training error, and how its first update grows a layer on average.

    That is the gradient of the weights in the first block over that in the last, in the initial
    network, times what `optimizer.layer_decay` makes of it. Runs that diverged or are not finished
    have no error, and stay seeds of their network: the others' mean would be that of survivors.
    """
    of = lambda recipe: (recipe.dataset.name, recipe.num_steps, recipe.batch_size)
    if len({of(network.recipe) for network in networks}) > 1:
        raise InputError(
            "growth compares final errors of one data set, number of steps and batch size; give "
            "such runs alone"
        )
    networks, rows = told_apart(networks, without=["status"]), []
    for network in tracker("networks")(networks):
        network.require_trained("growth", saved=False)
        network.require_plain_training("growth", {"label_smoothing": 0.0, "freeze": None})
        images, labels = network.images(split, examples)
        found = signals(network.model, network.at(0), images, labels)
        gradients = found.weight_gradient
        growth = float(gradients[0] / gradients[-1]) ** (1 / found.layers_between)
        summary, status = read_run(network.path).summary or {}, network.status
        rows.append(
            {**network.about(0), "growth": growth * network.recipe.optimizer.layer_decay,
             "status": status, "train_error": None if status else summary.get("train_error")}
        )  # fmt: skip
    return pd.DataFrame(rows).astype({"train_error": float})


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """Final training error against growth, a point a network and a dot a run."""
    return [[Panel("Final error against growth at the start", lambda axes: _draw(axes, table))]]


def _draw(axes: Axes, table: pd.DataFrame) -> None:
    look, ends = tables.looks(table), []
    axes.set_ylim(0, 100)
    for name, own in by(table, "network"):
        colour = look[name].colour
        axes.plot(
            own["growth"], 100 * own["train_error"], ".", color=colour, markersize=4, alpha=0.5
        )
        x, y = own["growth"].mean(), 100 * own["train_error"].mean()
        axes.plot(x, y, "o", color=colour, markersize=6)
        ends.append((x, y, look[name].label, colour))
    axes.axvline(MEAN_FIELD, color=style.LIGHT["muted"], linewidth=0.9, linestyle=":")
    axes.annotate(
        "mean field", (MEAN_FIELD, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
        textcoords="offset points", fontsize=8, color=style.LIGHT["muted"],
    )  # fmt: skip
    axes.set_xlabel("growth of the first update, a layer")
    axes.set_ylabel("final training error, %")
    room = 0.05 * np.ptp(table["growth"])
    tables.finish(axes, [table["growth"].min() - room, table["growth"].max() + room], ends)


def summarize(table: pd.DataFrame) -> list[str]:
    """Each network's dose and response, their rank correlation, and the spread at one dose."""
    sentences = []
    for name, own in by(table, "network"):
        sentences.append(
            f"{name} ({tables.num_seeds(own)}): the first update grows by "
            f"×{tables.mean(own['growth']).text('{:.3f}'.format)} a layer, the final training "
            f"error is {_shown(own)}."
        )
    lost = table[table["train_error"].isna()]
    names, why = sorted(set(lost["network"])), " or ".join(lost["status"].map(_LOST).unique())
    left_out = f", without {listed(names)}, of which a run {why}" if names else ""
    ended = table[~table["network"].isin(names)]
    found = ended.groupby("network", sort=False)[["growth", "train_error"]].mean()
    if len(found) >= _FEWEST:
        # Rounded, because doses that only the initial weights tell apart are one.
        ranks = stats.rankdata(found["growth"].round(2)), stats.rankdata(found["train_error"])
        correlation = stats.pearsonr(*ranks)
        low, high = correlation.confidence_interval()
        sentences.append(
            f"Over {len(found)} networks the rank correlation of growth and error is "
            f"{correlation.statistic:.2f} (95% interval {low:.2f} to {high:.2f}){left_out}."
        )
        sentences += _at_one_dose(found)
    return sentences


def _shown(own: pd.DataFrame) -> str:
    lost = own[own["train_error"].isna()]
    if lost.empty:
        return tables.mean(own["train_error"]).percent
    why = listed(filter(None, lost["status"].unique()))
    return f"none ({why})" if why else "none"


def _at_one_dose(found: pd.DataFrame) -> list[str]:
    """The widest spread of errors among networks whose growth is alike."""
    groups = [found[(found["growth"] - middle).abs() <= ALIKE] for middle in found["growth"]]
    group = max(groups, key=len)
    if len(group) < 2:
        return []
    best, worst = group["train_error"].idxmin(), group["train_error"].idxmax()
    return [
        f"{len(group)} of them start with one growth, ×{group['growth'].mean():.2f} a layer, and "
        f"end between {percent(group.loc[best, 'train_error'])} ({best}) and "
        f"{percent(group.loc[worst, 'train_error'])} ({worst})."
    ]
