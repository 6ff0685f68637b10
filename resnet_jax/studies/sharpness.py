"""Does training leave the good solution because the loss is too sharp there?

SGD with momentum β and learning rate η stays in a minimum only while the largest eigenvalue of the
loss's Hessian is below (2 + 2β) / η; with Nesterov's momentum, (2 + 2β) / (η (1 + 2β)) (Cohen et
al. 2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", §2 and
appendix B). So the solution by construction (v1 §1) is measured, trained on at several learning
rates, and from places around it.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from scipy.sparse.linalg import LinearOperator, eigsh

from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.runtime import cpu
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import training_loss
from resnet_jax.studies.identity_construction import AS_WELL, deepened, insert_identity_blocks
from resnet_jax.studies.landscape import direction
from resnet_jax.studies.networks import Network, Variables, train_on
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, listed, style
from resnet_jax.training.step import wrong

TRAINS = True

_TOLERANCE = 0.01  # of the eigenvalue
_BASIS = 10  # vectors that Lanczos's method keeps: the default, 20, takes more products


def largest_eigenvalue(
    model: ResNet, variables: Variables, images: np.ndarray, labels: np.ndarray
) -> float:
    """Of the Hessian of a batch's mean loss in training, over all parameters; by Lanczos's method.

    NaN where training has diverged, so that the Hessian is not finite.

    Args:
      model: takes the whole batch for its statistics.
      variables: its parameters and statistics.
      images: [batch, height, width, channels], normalised.
      labels: int [batch].
    """
    flat, unravel = ravel_pytree(variables["params"])

    def product(vector: np.ndarray) -> np.ndarray:
        tangent = unravel(jnp.asarray(vector.astype(np.float32).ravel()))
        found = _hessian_times(model, variables, images, labels, tangent)
        return np.asarray(ravel_pytree(found)[0], np.float64)

    operator = LinearOperator((flat.size, flat.size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(flat.size)
    first = product(start)
    if not np.isfinite(first).all():
        return math.nan
    if not first.any():  # ARPACK refuses this too.
        return 0.0
    found = eigsh(
        operator, 1, which="LA", ncv=_BASIS, tol=_TOLERANCE, v0=start, return_eigenvectors=False
    )
    return float(found[0])


@functools.partial(jax.jit, static_argnums=0)
def _hessian_times(model, variables, images, labels, tangent):
    loss = lambda params: training_loss(model, {**variables, "params": params}, images, labels)
    with cpu.as_jax_has_it():  # Its own gradients of convolutions have a tangent.
        return jax.jvp(jax.grad(loss), (variables["params"],), (tangent,))[1]


def threshold(rate: float, momentum: float, nesterov: bool) -> float:
    """The eigenvalue above which SGD at this learning rate leaves a minimum."""
    return (2 + 2 * momentum) / rate / (1 + 2 * momentum if nesterov else 1)


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 128,
    split: str = "train",
    depth: int = 0,
    steps: int = 100,
    rates: tuple = (0.03, 0.01, 0.003, 0.001),
    noise: tuple = (0.05, 0.1, 0.2, 0.5),
) -> pd.DataFrame:
    """A row a place and how it was trained on, by `kind`: trained, constructed, rate and noise.

    `examples` are one batch of the papers' size, whose loss the eigenvalue is of.

    Of each network the trained weights; of those with fewer layers than `depth` (0 is the depth of
    the deepest given, or thrice as many blocks where all have one) the network that is built from
    it. That is trained on for `steps` at a constant learning rate, the recipe's own and `rates`,
    and at the recipe's own from `noise` away: so many times each filter's norm, at random. Errors
    before and after are of the same images; `highest` is the optimiser's, of augmented batches.
    """
    deepest = max(network.about()["depth"] for network in networks)
    shallowest = min(network.about()["depth"] for network in networks)
    depth = depth or (deepest if deepest > shallowest else 0)
    shallow = [network for network in networks if not depth or network.about()["depth"] < depth]
    deeps = {id(network): deep for network, deep in deepened(shallow, depth, "sharpness")}
    rows = []
    for network in networks:
        _check_optimizer(network)
    for network in networks:
        images, labels = network.images(split, examples)
        look = lambda net, at, images=images, labels=labels: {
            "eigenvalue": largest_eigenvalue(net.model, at, images, labels)
        }
        weights, own = network.last(), network.recipe.schedule.learning_rate
        momentum, nesterov = network.recipe.optimizer.momentum, network.recipe.optimizer.nesterov
        limit = lambda rate, b=momentum, n=nesterov: {"rate": rate, "limit": threshold(rate, b, n)}
        rows.append(
            {**network.about(), "kind": "trained", **limit(own), **look(network, weights),
             "error": _error(network, weights, images, labels)}
        )  # fmt: skip
        if id(network) not in deeps:
            continue
        deep = deeps[id(network)]
        built = insert_identity_blocks(
            network.model, weights, deep.model, images, network.recipe.seed
        )
        about = {**deep.about(0), "from": network.label}
        rows.append(
            {**about, "kind": "constructed", **limit(own), **look(deep, built),
             "error": _error(deep, built, images, labels)}
        )  # fmt: skip
        here = tracker(f"{deep.label}, seed {network.recipe.seed}")
        ways = [(rate, 0.0) for rate in sorted({own, *rates}, reverse=True)]
        for rate, size in here([*ways, *((own, size) for size in noise)]):
            start = _moved(built, size, network.recipe.seed)
            ended, curve = train_on(_at_rate(deep, rate), start, steps, max(steps // 5, 1))
            rows.append(
                {**about, "kind": "noise" if size else "rate", "noise": size, **limit(rate),
                 "start_error": _error(deep, start, images, labels),
                 "error": _error(deep, ended, images, labels),
                 "highest": max(row["error"] for row in curve),
                 **({} if size else look(deep, ended))}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _check_optimizer(network: Network) -> None:
    """The threshold is that of SGD at one learning rate on the loss that is measured."""
    network.require_trained("sharpness")
    usual = {"optimizer.layer_decay": 1.0, "optimizer.max_grad_norm": None,
             "label_smoothing": 0.0, "freeze": None}  # fmt: skip
    network.require_plain_training("sharpness", usual)


def _at_rate(network: Network, rate: float) -> Network:
    fields = {"schedule.name": "constant", "schedule.warmup": "none", "schedule.boundaries": ()}
    recipe = network.recipe.replace(**fields, **{"schedule.learning_rate": rate})
    return dataclasses.replace(network, recipe=recipe)


def _moved(variables: Variables, size: float, seed: int) -> Variables:
    away = direction(variables["params"], seed)
    params = jax.tree.map(lambda w, d: np.asarray(w) + size * d, variables["params"], away)
    return {**variables, "params": params}


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Any, variables: Variables, images: jax.Array) -> jax.Array:
    rngs = {"dropout": jax.random.key(0)}
    return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]


def _error(network: Network, variables: Variables, images: Any, labels: np.ndarray) -> float:
    """In training, by the batch's own statistics: those of training do not fit what was moved."""
    return float(np.mean(wrong(_logits(network.model, variables, images), labels)))


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """Error and largest eigenvalue against the learning rate; error against the noise."""
    built = table[table["kind"] == "constructed"]
    rate, noise = (table[table["kind"] == kind] for kind in ("rate", "noise"))
    if built.empty:
        return [[Panel("Sharpness", lambda axes: _bars(axes, table))]]
    panels = [
        Panel("Trained on from the constructed network",
              lambda axes: _against_rate(axes, rate, "error", "training error, %", built)),
        Panel("Sharpness where training ends",
              lambda axes: _against_rate(axes, rate, "eigenvalue", "largest eigenvalue", built)),
    ]  # fmt: skip
    if len(noise):
        panels.append(
            tables.line_panel("Trained on from around it", noise, "noise", "error", scale=100,
                              marker="o", xlabel="distance, in filters' norms",
                              ylabel="training error, %")
        )  # fmt: skip
    return [panels]


def _bars(axes: Axes, table: pd.DataFrame) -> None:
    found = table.groupby("network", sort=False)["eigenvalue"].median()
    axes.barh(list(found.index), found, color=style.LIGHT["series-4"], height=0.5)
    axes.set_xlabel("largest eigenvalue")
    axes.invert_yaxis()


def _rate_and_fate(rate: float, own: pd.DataFrame) -> str:
    lost, count = int(own["eigenvalue"].isna().sum()), len(own)
    fate = "diverges" if lost == count else f"{lost} of {count} diverge"
    return f"{number(rate)}\n{fate}" if lost else number(rate)


def _against_rate(
    axes: Axes, rate: pd.DataFrame, column: str, words: str, built: pd.DataFrame
) -> None:
    is_error = column == "error"
    axes.set_xscale("log")
    rates = list(rate["rate"].unique())  # In the order of `by`.
    axes.set_xticks(rates, [_rate_and_fate(value, own) for value, own in by(rate, "rate")])
    axes.set_xticks([], minor=True)
    muted: dict[str, Any] = {"color": style.LIGHT["muted"], "linewidth": 0.9, "linestyle": ":"}
    if is_error:  # Where the constructed network's own eigenvalue is at the threshold.
        for _, own in by(built, "network"):
            axes.axvline((own["rate"] * own["limit"] / own["eigenvalue"]).median(), **muted)
    else:
        limits = rate.drop_duplicates("rate")
        axes.plot(limits["rate"], limits["limit"], **muted)
    tables.draw_lines(
        axes, rate, "rate", column, xlabel="learning rate", ylabel=words, marker="o",
        log=not is_error, scale=100 if is_error else 1,
    )  # fmt: skip


def summarize(table: pd.DataFrame) -> list[str]:
    """How sharp each place is beside the threshold, and from where training stays or returns."""
    sentences = []
    for (name, kind), own in by(table[table["kind"].isin(["trained", "constructed"])],
                                "network", "kind"):  # fmt: skip
        where = "trained" if kind == "trained" else f"built from {own['from'].iloc[0]}"
        rate, limit, values = own["rate"].iloc[0], own["limit"].iloc[0], own["eigenvalue"]
        size = tables.geometric_mean(values).text(number) if values.notna().all() else "not finite"
        sentences.append(
            f"{name}, {where} ({tables.num_seeds(own)}, training error "
            f"{tables.mean(own['error']).percent}): the loss's largest eigenvalue is {size}; at "
            f"its learning rate of {number(rate)} SGD can stay below {number(limit)}."
        )
    for name, own in by(table[table["kind"] == "rate"], "network"):
        as_built = table[(table["network"] == name) & (table["kind"] == "constructed")]
        sentences.append(f"{name} trained on at {listed(_by_rate(own, as_built))}.")
    for name, own in by(table[table["kind"] == "noise"], "network"):
        found = [
            f"{number(size)} away from {tables.mean(part['start_error']).percent} to "
            f"{tables.mean(part['error']).percent}"
            for size, part in by(own, "noise")
        ]
        sentences.append(
            f"{name} trained on at {number(own['rate'].iloc[0])} from {listed(found)}."
        )
    return sentences


def _by_rate(own: pd.DataFrame, as_built: pd.DataFrame) -> list[str]:
    first, found = as_built.set_index("seed")["error"], []
    for rate, part in by(own, "rate"):
        count, kept = len(part), part[part["eigenvalue"].notna()]
        if kept.empty:
            found.append(f"{number(rate)} diverges")
            continue
        ended = kept.set_index("seed")["error"]
        stayed = int((ended <= first[ended.index] + AS_WELL).sum())
        does = {0: "leaves", count: "stays"}.get(stayed, f"stays in {stayed} of {count} seeds")
        others = ""
        if len(kept) < count:
            does += f" and diverges in {count - len(kept)} of {count} seeds"
            others = " of the others"
        found.append(
            f"{number(rate)} {does} (error{others} {tables.mean(ended).percent}, eigenvalue "
            f"{tables.geometric_mean(kept['eigenvalue']).text(number)})"
        )
    return found
