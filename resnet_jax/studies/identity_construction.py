"""The solution by construction (v1 §1): a deeper network that computes what a
shallower one does, and where training takes it.

"The added layers are identity mapping, and the other layers are copied from the learned shallower
model. The existence of this constructed solution indicates that a deeper model should produce no
higher training error than its shallower counterpart."
"""

import collections
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import BLOCKS, ORDERS, Architecture
from resnet_jax.models.batch_norm import EPSILON
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import tables
from resnet_jax.studies.hooks import batches, block_output
from resnet_jax.studies.networks import Network, Variables, train_on
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, percent, style
from resnet_jax.training.step import cross_entropy, wrong

TRAINS = True

SAME = 1e-4
"""Of the logits' size: a difference that rounding in so many layers explains."""

AS_WELL = 0.01
"""Training errors within one point are alike."""

_CURVE_POINTS = 40
_COLOURS = {
    "constructed": style.LIGHT["series-4"],
    "shallow": style.LIGHT["series-3"],
    "scratch": style.LIGHT["series-1"],
}

_NOT_AT_ZERO = ("relu", "sigmoid")  # not 0 there with a slope


def insert_identity_blocks(
    shallow: ResNet, variables: Any, deep: ResNet, images: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Variables with which `deep` computes what `shallow` does with `variables`.

    The blocks that are added to each stage pass their input on. In a residual network their
    branches end with zeros: the last batch norm's scale and bias, or the last kernel where no norm
    follows; their other layers are initialised as ever. In a plain network each layer is a delta
    kernel and a batch norm whose scale and bias undo its statistics; these are the input's own,
    measured on `images`, so that the block passes its input on in training too, up to the
    difference between batches. The ReLU after it changes nothing: a block's output is not negative.

    Args:
      shallow: the trained network.
      variables: its parameters and statistics.
      deep: the same network with more blocks.
      images: [examples, height, width, channels].
      seed: of the other layers in the branches.

    Raises:
      InputError: `deep` is not `shallow` with more blocks in each stage, or its blocks cannot be
        the identity.
    """
    _check(shallow.architecture, deep.architecture)
    fresh = deep.lazy_init(jax.random.key(seed), jnp.asarray(images[:1]), train=False)
    built = jax.tree.map(np.array, {"batch_stats": {}, **fresh})
    for collection, tree in variables.items():
        built[collection].update(jax.tree.map(np.array, dict(tree)))
    moments = jax.device_get(_stage_moments(shallow, variables, images))
    for stage, (mean, var) in enumerate(moments):
        before, after = (net.architecture.stage_sizes[stage] for net in (shallow, deep))
        for place in range(before + 1, after + 1):
            name = f"stage{stage + 1}_unit{place}"
            block = {collection: tree.get(name, {}) for collection, tree in built.items()}
            if deep.architecture.shortcut == "none":
                _pass_through(block, mean, var)
            else:
                _end_with_zeros(block, deep.architecture)
    return built


def _check(shallow: Architecture, deep: Architecture) -> None:
    same = dataclasses.replace(shallow, stage_sizes=deep.stage_sizes) == deep
    sizes = list(zip(shallow.stage_sizes, deep.stage_sizes, strict=False))
    if (
        not same
        or len(shallow.stage_sizes) != len(deep.stage_sizes)
        or any(a > b for a, b in sizes)
    ):
        raise InputError(
            f"a network of {deep.depth} layers: not that of {shallow.depth} with blocks added"
        )
    if deep.shortcut == "none":
        allowed = {"order": "original", "activation": "relu", "parameterization": "standard"}
        if deep.block == "bottleneck":
            raise InputError("block='bottleneck': a plain bottleneck is not the identity")
    else:
        allowed = {"shortcut": "identity"}
        if deep.option == "C":
            raise InputError("option='C': a block with a projection is not the identity")
        if deep.order == "bn_after_add":
            raise InputError("order='bn_after_add': a block that ends with it is not the identity")
        if deep.order == "original" and deep.activation not in ("relu", "linear"):
            raise InputError(
                f"activation={deep.activation!r}: a block that ends with it is not the identity"
            )
        # Zeros before a ReLU have no gradient; of a sigmoid they come out as a half.
        ends_active = "activation" in ORDERS[deep.order].last
        if ends_active and deep.initialization != "skipinit" and deep.activation in _NOT_AT_ZERO:
            raise InputError(
                f"activation={deep.activation!r}: a branch that ends with it, as those of "
                f"order={deep.order!r} do, cannot both add nothing and learn; one with tanh can"
            )
    for field, value in allowed.items():
        if getattr(deep, field) != value:
            raise InputError(
                f"{field}={getattr(deep, field)!r}: such blocks cannot be the identity; "
                f"those with {field}={value!r} can"
            )


@partial(jax.jit, static_argnums=0)
def _stage_moments(model, variables, images) -> list[tuple[jax.Array, jax.Array]]:
    """Mean and variance of each stage's output, by channel."""
    moments = {}

    def measured(block, _, y):
        stage = int(block.name.removeprefix("stage").split("_")[0])
        moments[stage] = y.mean((0, 1, 2)), y.var((0, 1, 2))
        return y

    with block_output(measured):
        model.apply(variables, images, train=False)
    return [moments[stage] for stage in sorted(moments)]


def _pass_through(block: dict[str, Any], mean: np.ndarray, var: np.ndarray) -> None:
    """Makes every layer of a plain block the identity, in place."""
    for name, layer in block["params"].items():
        if "kernel" in layer:
            height, width, channels, _ = layer["kernel"].shape
            layer["kernel"] = np.zeros_like(layer["kernel"])
            layer["kernel"][height // 2, width // 2] = np.eye(channels)
            if "bias" in layer:
                layer["bias"] = np.zeros_like(layer["bias"])
        else:
            layer["scale"], layer["bias"] = np.sqrt(var + np.float32(EPSILON)), np.array(mean)
            block["batch_stats"][name] = {"mean": np.array(mean), "var": np.array(var)}


def _end_with_zeros(block: dict[str, Any], architecture: Architecture) -> None:
    """Makes a branch add nothing, in place."""
    if architecture.initialization == "skipinit":
        return  # It adds nothing by its multiplier; of two zero factors neither has a gradient.
    params, end = block["params"], str(BLOCKS[architecture.block])  # the branch's last layer
    last = params.get(f"norm{end}", params[f"conv{end}"])
    for name in last:
        last[name] = np.zeros_like(last[name])


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "train",
    depth: int = 0,
    steps: int = 100,
    from_scratch: bool = True,
) -> pd.DataFrame:
    """A row an evaluation and a point of a training curve, by `kind`; `depth` 0 is thrice as many.

    The network that is built is trained on for `steps`, and beside it, in the same way, the
    shallow one itself; the deep one `from_scratch` gets these steps and, before them, as many as
    the shallow one had. What the recipe freezes stays as given in the first two; from scratch
    nothing is frozen. `at_step` counts the shallow one's steps too.
    Evaluations are all of the same images, curves of the optimiser's augmented batches.
    """
    rows = []
    for network, deep in deepened(networks, depth, "identity_construction"):
        had = network.last_step
        images, labels = network.images(split, examples)
        weights = network.last()
        built = insert_identity_blocks(
            network.model, weights, deep.model, images, network.recipe.seed
        )
        about = {**deep.about(0), "from": network.label, "from_step": had}
        before = _evaluate(network, weights, images, labels)
        after = _evaluate(deep, built, images, labels)
        difference = float(np.abs(before["logits"] - after["logits"]).max())
        size = float(np.abs(before["logits"]).max())
        for start, found in (("shallow", before), ("constructed", after)):
            rows.append(
                {**about, "start": start, "kind": "evaluated", "at_step": had,
                 "loss": found["loss"], "error": found["error"],
                 "logits_difference": difference, "logits_size": size}
            )  # fmt: skip
        shown = had + steps if from_scratch else steps
        every = max(min(shown // _CURVE_POINTS, steps // 4), 1)
        frozen = deep.recipe.replace(freeze=network.recipe.freeze)
        starts = (
            ("constructed", dataclasses.replace(deep, recipe=frozen), built, had),
            ("shallow", network, weights, had),
            ("scratch", deep, deep.initial(), 0),
        )
        wanted = starts if from_scratch else starts[:-1]
        for start, trained, first, begin in wanted if steps else ():
            track, here = tracker(f"{deep.label}, {start}"), {**about, "start": start}
            ended, curve = train_on(trained, first, had + steps - begin, every, track)
            rows += [
                {**here, "kind": "training", **row, "at_step": begin + row["at_step"]}
                for row in curve
            ]
            found = _evaluate(trained, ended, images, labels)
            rows.append(
                {**here, "kind": "evaluated", "at_step": had + steps, "loss": found["loss"],
                 "error": found["error"]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def deepened(networks: Sequence[Network], depth: int, study: str) -> list[tuple[Network, Network]]:
    """Each network and the one to build from it, see `deeper`.

    What is built from several networks has their names in its own: "plain-56, from plain-20".

    Raises:
      InputError: one is not trained, or not shallower.
    """
    for network in networks:
        network.require_trained(study)
    pairs = [(network, deeper(network, depth)) for network in networks]
    labels = {(deep.label, network.label) for network, deep in pairs}
    counts = collections.Counter(label for label, _ in labels)
    return [
        (network, deep if counts[deep.label] == 1 else deep.renamed(f", from {network.label}"))
        for network, deep in pairs
    ]


def deeper(network: Network, depth: int) -> Network:
    """The same network, untrained, of so many layers; 0 is thrice as many blocks.

    Raises `InputError` if it would be no deeper.
    """
    own = network.about()["depth"]
    depth = depth or 3 * (own - 2) + 2
    if depth <= own:
        raise InputError(f"depth={depth}: must be above {own}, the depth of {network.label}")
    return network.of_depth(depth).renamed(network.told)


def _evaluate(
    network: Network, variables: Variables, images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    with jax.default_matmul_precision("highest"):  # Two networks' logits are compared.
        logits = np.concatenate(
            [np.asarray(_logits(network.model, variables, part)) for (part,) in batches(images)]
        )
    return {
        "logits": logits,
        "loss": float(cross_entropy(logits, labels).mean()),
        "error": float(np.mean(wrong(logits, labels))),
    }


@partial(jax.jit, static_argnums=0)
def _logits(model: Any, variables: Variables, images: jax.Array) -> jax.Array:
    return model.apply(variables, images, train=False)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """Training error against steps by start, a panel a network."""
    found = []
    for name, own in by(table, "network"):
        if (own["kind"] == "training").any():
            more = " and from scratch" if (own["start"] == "scratch").any() else ""
            title = f"{name}, built from {own['from'].iloc[0]}{more}"
            found.append(Panel(title, partial(_curves, own=own)))
        else:
            found.append(Panel(name, partial(_bars, own=own)))
    return [found[start : start + 2] for start in range(0, len(found), 2)]


def summarize(table: pd.DataFrame) -> list[str]:
    """Whether the deep network computes what the shallow one does, and where both starts end."""
    sentences = []
    for name, own in by(table, "network"):
        shallow, built = (_as_built(own, start) for start in ("shallow", "constructed"))
        relative = (built["logits_difference"] / built["logits_size"].clip(lower=1e-30)).max()
        same = "computes what" if relative <= SAME else "does not compute what"
        source, had = built["from"].iloc[0], built["from_step"].max()
        sentences.append(
            f"{name.removesuffix(f', from {source}')}, built from {source} (step {had:,}, "
            f"{tables.num_seeds(own)}) by identity layers, {same} it does: logits differ by "
            f"{number(relative)} of their size at most, error "
            f"{tables.mean(built['error']).percent} and {tables.mean(shallow['error']).percent}."
        )
        if (own["kind"] == "training").any():
            sentences += _ends(name, own)
    return sentences


def _ends(name: str, own: pd.DataFrame) -> list[str]:
    """Where training takes the built network, and the one from scratch after as many steps."""
    training = own[own["kind"] == "training"]
    total, had = training["at_step"].max(), own["from_step"].max()
    as_built = _as_built(own, "constructed").set_index("seed")["error"]
    ended = own[(own["kind"] == "evaluated") & (own["at_step"] > own["from_step"])]
    last = {start: part.set_index("seed")["error"] for start, part in by(ended, "start")}
    built, control = (tables.mean(last[start]) for start in ("constructed", "shallow"))
    peak = training[training["start"] == "constructed"]["error"].max()
    text = (
        f"Trained on from there for {total - had:,} steps, {total:,} with those of "
        f"{own['from'].iloc[0]}, it has an error of {built.percent} on the same images (up to "
        f"{percent(peak)} in its batches on the way)"
    )
    seeds = len(last["constructed"])
    left, stayed = (last["constructed"] > as_built + AS_WELL).sum(), "stays at"
    if left == seeds:
        stayed = "leaves"
    elif left:
        stayed = f"leaves, in {left} of {seeds} seeds,"
    elif (last["constructed"] < as_built - AS_WELL).all():
        stayed = "improves on"
    sentences = [
        f"{text}: training {stayed} the solution that it was given, of "
        f"{tables.mean(as_built).percent}."
    ]
    more = tables.difference(last["constructed"], last["shallow"])
    sentences.append(
        f"Trained on in the same way, {own['from'].iloc[0]} itself has an error of "
        f"{control.percent} there: " + _beside_control(more)
    )
    if "scratch" in last:
        sentences.append(_from_scratch(name, total, as_built, last))
    return sentences


def _from_scratch(name: str, total: int, as_built: pd.Series, last: dict[str, pd.Series]) -> str:
    """Whether training without the solution finds it, and ends as well as training from it."""
    to_solution = tables.difference(last["scratch"], as_built)
    to_trained = tables.difference(last["scratch"], last["constructed"])
    beside = (
        f"Trained from scratch for {total:,} steps {name} has an error of "
        f"{tables.mean(last['scratch']).percent} there"
    )
    if to_solution is None or to_trained is None:
        seeds = len(last["scratch"])
        found_not = (last["scratch"] > as_built + AS_WELL).sum()
        return (
            f"{beside}; it does not reach the constructed solution in {found_not} of {seeds} "
            f"{'seed' if seeds == 1 else 'seeds'}."
        )
    if to_solution.high <= AS_WELL:
        return (
            f"{beside}: it reaches the constructed solution, so nothing shows that the solution is "
            "hard to find."
        )
    if to_solution.low <= AS_WELL:
        return f"{beside}: whether it reaches the constructed solution is undecided."
    if to_trained.low > AS_WELL:
        return f"{beside}: it reaches neither the constructed solution nor this."
    as_well = "does as well as" if to_trained.high <= AS_WELL else "may do as well as"
    return (
        f"{beside}: it does not reach the constructed solution, but {as_well} training that begins "
        "there."
    )


def _beside_control(more: tables.Interval | None) -> str:
    """Whether the built network loses more than the shallow one does by the same training."""
    if more is None:
        return f"whether depth loses more is not judged with less than {tables.ENOUGH} seeds."
    points = more.text(lambda fraction: f"{100 * fraction:.1f}")
    if more.low > 0:
        return f"depth loses more, by {points} points."
    if more.high < AS_WELL:
        return f"depth loses no more, {points} points."
    return f"whether depth loses more is undecided, {points} points."


def _as_built(own: pd.DataFrame, start: str) -> pd.DataFrame:
    """What was evaluated before any training of the deep network, a row a seed."""
    evaluated = (own["kind"] == "evaluated") & (own["start"] == start)
    return own[evaluated & (own["at_step"] == own["from_step"])]


def _curves(axes: Axes, own: pd.DataFrame) -> None:
    axes.set_ylim(0, 100)
    ends = []
    training = own[own["kind"] == "training"]
    for start, part in by(training, "start"):
        colour = _COLOURS[start]
        for _, one in by(part, "seed") if part["seed"].nunique() > 1 else ():
            axes.plot(one["at_step"], 100 * one["error"], color=colour, linewidth=0.5, alpha=0.35)
        middle = 100 * part.groupby("at_step")["error"].median()
        axes.plot(middle.index, middle, color=colour, linewidth=1.8)
        words = f"{own['from'].iloc[0]} itself" if start == "shallow" else f"from {start}"
        ends.append((middle.index[-1], middle.iloc[-1], words, colour))
    muted, level = style.LIGHT["muted"], 100 * _as_built(own, "shallow")["error"].mean()
    axes.axhline(level, color=muted, linewidth=0.8, linestyle=":")
    ends.append((training["at_step"].max(), level, f"{own['from'].iloc[0]}, evaluated", muted))
    axes.set_xlabel("step, those of the shallower network counted")
    axes.set_ylabel("training error of augmented batches, %")
    first = 0 if (own["start"] == "scratch").any() else own["from_step"].min()
    tables.finish(axes, [first, *training["at_step"]], ends)


def _bars(axes: Axes, own: pd.DataFrame) -> None:
    values = [100 * _as_built(own, start)["error"].mean() for start in ("shallow", "constructed")]
    labels = [str(own["from"].iloc[0]), f"{own['network'].iloc[0]}, built from it"]
    axes.barh(labels, values, color=style.LIGHT["series-4"], height=0.5)
    axes.set_xlabel("error, %")
    axes.invert_yaxis()
