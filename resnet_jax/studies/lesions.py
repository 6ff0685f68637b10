"""What a trained network loses with its blocks, and which paths carry its gradient.

Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks".
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.axes import Axes

from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.models.resnet import ResNet, pad_shortcut
from resnet_jax.reporting.style import Panel, number
from resnet_jax.studies import hooks, tables
from resnet_jax.studies.hooks import batches, double_precision, mean_over
from resnet_jax.studies.networks import Network, Variables
from resnet_jax.studies.study import Track, Tracker
from resnet_jax.studies.tables import by, listed, percent
from resnet_jax.training.step import wrong

LEFT_OUT = 0.05
"""Of the gradient's norm: paths up to a length stand for all of it if the others sum to less."""

_PIXELS = 2**14  # of all copies that go through the network at once, in float64


class PathGradients(NamedTuple):
    """Of the loss gradient at the first block's input: the part that paths of each length bring.

    A path of length k goes through k blocks' branches and along the other blocks' shortcuts. The
    parts g_k sum to the whole gradient g. All are [lengths], over all examples together.

    Attributes:
      length: from 0 to the number of blocks.
      share_of_paths: how many of the 2^blocks paths are that long, a fraction.
      share: ⟨g_k, g⟩ / ‖g‖², signed; they sum to 1.
      norm: ‖g_k‖ / ‖g‖; where parts cancel, they sum to more than 1.
      rest: ‖Σ g_j over j > k‖ / ‖g‖, what is missing without longer paths.
    """

    length: np.ndarray
    share_of_paths: np.ndarray
    share: np.ndarray
    norm: np.ndarray
    rest: np.ndarray


def error_with(
    model: ResNet, variables: Any, keep: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> float:
    """The error, a fraction, when only the blocks that `keep`, bool [blocks], says are there.

    A deleted block's input passes on. In a residual network its branch is taken away; in a plain
    one, and where that changes shapes, option A's stride and zero channels stand for the block.
    """
    keep = np.asarray(keep, bool)
    return float(mean_over(lambda *part: _error(model, variables, keep, *part), images, labels))


def delete_each(
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    blocks: Sequence[int] | None = None,
    track: Track = iter,
) -> np.ndarray:
    """The error without each one of `blocks` (default all), [blocks]."""
    count = len(model.block_names)
    blocks = range(count) if blocks is None else blocks
    return np.array(
        [
            error_with(model, variables, np.arange(count) != block, images, labels)
            for block in track(blocks)
        ]
    )


def random_lesions(
    kind: str,
    model: ResNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    counts: Sequence[int],
    repeats: int = 3,
    seed: int = 0,
    track: Track = iter,
) -> np.ndarray:
    """Errors after so many random lesions, [counts, repeats].

    By `kind`, "delete" takes so many blocks away, "swap" makes so many swaps of two blocks of equal
    shape.
    """
    draws = np.random.default_rng(seed)
    outcomes = []
    for count in track(list(np.repeat(counts, repeats))):
        keep, weights = np.ones(len(model.block_names), bool), variables
        if kind == "delete":
            keep[draws.choice(len(keep), count, replace=False)] = False
        else:
            weights = swap(model, variables, count, draws)
        outcomes.append(error_with(model, weights, keep, images, labels))
    return np.reshape(outcomes, (len(counts), repeats))


def swap(model: ResNet, variables: Any, count: int, draws: np.random.Generator) -> dict[str, Any]:
    """`variables` after `count` swaps of two blocks of a stage, all of them of different pairs.

    At most `num_pairs(model)` swaps. The first block of a stage stays: it changes the shape, or,
    in pre-activation networks, is another kind of block.

    Raises:
      InputError: there are fewer pairs.
    """
    if count > num_pairs(model):
        raise InputError(f"count={count}: {num_pairs(model)} pairs of blocks have the same shape")
    stages = [
        [f"stage{stage}_unit{number}" for number in range(2, size + 1)]
        for stage, size in enumerate(model.architecture.stage_sizes, start=1)
    ]
    order = {name: name for name in model.block_names}
    pairs = [pair for names in stages for pair in itertools.combinations(names, 2)]
    # No pair twice: two swaps of one pair would undo each other.
    for place in draws.permutation(len(pairs))[:count]:
        a, b = pairs[place]
        order[a], order[b] = order[b], order[a]
    return {
        collection: {name: tree[order.get(name, name)] for name in tree}
        for collection, tree in variables.items()
    }


def num_pairs(model: ResNet) -> int:
    """Pairs of blocks that can stand in each other's place."""
    return sum(math.comb(size - 1, 2) for size in model.architecture.stage_sizes)


def path_gradients(
    model: ResNet, variables: Any, images: np.ndarray, labels: np.ndarray, track: Track = iter
) -> PathGradients:
    """The gradient that all paths of each length carry (Veit et al. §5), exactly, in float64.

    With every branch's gradient multiplied by t, the gradient is a polynomial Σ tᵏ g_k. Its
    coefficients are not solved for but sent back: as many copies of an example as there are
    lengths go through the network, the loss is the first one's, and at every branch the gradient
    moves on by one copy. So copy k gets g_k, and nothing is subtracted. Gates are held constant:
    a factor of paths, not a path.

    Args:
      model: runs with its running statistics.
      variables: its parameters and statistics.
      images: [examples, height, width, channels].
      labels: int [examples].
      track: tells of the loop.

    Raises:
      InputError: a plain network, which has one path only.
    """
    if model.architecture.shortcut == "none":
        raise InputError("shortcut='none': a plain network has one path only")
    blocks = model.architecture.num_blocks
    lengths = np.arange(blocks + 1)
    at_once = max(_PIXELS // (len(lengths) * images.shape[1] * images.shape[2]), 1)
    sums = np.zeros((3, len(lengths)))
    total = 0.0
    with double_precision(model, variables) as (model, variables):
        for part in track(list(batches(images.astype(np.float64), labels, at_once=at_once))):
            by_length = np.asarray(_path_parts(model, variables, *part)).reshape(len(lengths), -1)
            whole = by_length.sum(0)
            rest = whole - np.cumsum(by_length, axis=0)
            sums += [by_length @ whole, (by_length**2).sum(1), (rest**2).sum(1)]
            total += whole @ whole
    with np.errstate(invalid="ignore", divide="ignore"):
        share, norm, rest = sums[0] / total, np.sqrt(sums[1] / total), np.sqrt(sums[2] / total)
    paths = np.array([math.comb(blocks, k) / 2**blocks for k in range(blocks + 1)])
    return PathGradients(lengths, paths, share, norm, rest)


@partial(jax.jit, static_argnums=0)
def _error(model, variables, keep, images, labels) -> jax.Array:
    plain = model.architecture.shortcut == "none"

    def without(block, x, y):
        kept = keep[model.block_names.index(block.name)]
        instead = pad_shortcut(x, block.stride, block.channels) if plain else jnp.zeros_like(y)
        return jnp.where(kept, y, instead)

    with hooks.block_output(without) if plain else hooks.branch_output(without):
        logits = model.apply(variables, images, train=False)
    return wrong(logits, labels).mean()


@partial(jax.jit, static_argnums=0)
def _path_parts(model, variables, images, labels) -> jax.Array:
    """g_k of each example's loss at the first block's input: [lengths, batch, …]."""
    copies = model.architecture.num_blocks + 1
    tiled = jnp.tile(images, (copies, 1, 1, 1))
    longer = lambda block, _, y: _one_longer(y, copies)
    constant = lambda block, _, y: jax.lax.stop_gradient(y)

    def loss(probe):
        """The first copies' losses; the gradient of `probe` is what arrives at the first block."""
        probed = lambda block, x: x + probe if block.name == model.block_names[0] else x
        with (
            hooks.block_input(probed),
            hooks.branch_output(longer),
            hooks.gate_output(constant),
        ):
            logits = model.apply(variables, tiled, train=False)[: len(images)]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    first = jax.eval_shape(partial(_first_input, model, variables), tiled)
    found = jax.grad(loss)(jnp.zeros(first.shape, first.dtype))
    return found.reshape(copies, len(images), *found.shape[1:])


def _first_input(model, variables, images) -> jax.Array:
    found = []

    def seen(block, x):
        found.append(x)
        return x

    with hooks.block_input(seen):
        model.apply(variables, images, train=False)
    return found[0]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _one_longer(y: jax.Array, copies: int) -> jax.Array:
    """Returns `y`; the gradient of copy k, of [copies · batch, …], continues in copy k + 1."""
    return y


def _one_longer_backward(copies, _, gradient):
    parts = gradient.reshape(copies, -1, *gradient.shape[1:])
    moved = jnp.concatenate([jnp.zeros_like(parts[:1]), parts[:-1]])
    return (moved.reshape(gradient.shape),)


_one_longer.defvjp(lambda y, copies: (y, None), _one_longer_backward)


def measure(
    networks: Sequence[Network],
    tracker: Tracker,
    *,
    examples: int = 256,
    path_examples: int = 32,
    split: str = "test",
    most_blocks: int = 60,
    repeats: int = 10,
    over_training: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a lesion or length of path, by `kind`; of deep networks `most_blocks` single blocks.

    Paths are those of the last checkpoint; with `over_training`, of initialisation, with the
    batch-norm statistics of the images, and of every checkpoint.
    """
    rows = []
    for network in networks:
        network.require_trained("lesions")
        images, labels = network.images(split, examples)
        about = {**network.about(), "classes": network.model.num_classes}
        asked = (network.model, network.last(), images, labels)
        count = network.model.architecture.num_blocks
        track = lambda what, label=network.label: tracker(f"{label}, {what}")
        row = lambda kind, about=about, **values: {**about, "kind": kind, **values}

        whole = error_with(network.model, asked[1], np.ones(count, bool), images, labels)
        rows.append(row("intact", error=whole))
        blocks = tables.evenly_spaced(count, most_blocks)
        errors = delete_each(*asked, blocks=blocks, track=track("each block"))
        rows += [
            row("delete_each", block=int(block) + 1, error=float(error))
            for block, error in zip(blocks, errors, strict=True)
        ]
        pairs = num_pairs(network.model)
        for kind, most in (("delete", count - 1), ("swap", min(count - 1, pairs))):
            counts = [number + 1 for number in tables.evenly_spaced(most, 8)] if most else []
            how: dict[str, Any] = {"repeats": repeats, "seed": seed, "track": track(kind)}
            errors = random_lesions(kind, *asked, counts, **how)
            rows += [
                row(kind, count=number, repeat=repeat, error=float(error))
                for number, drawn in zip(counts, errors, strict=True)
                for repeat, error in enumerate(drawn)
            ]
        if not network.is_plain:
            few = network.images(split, min(path_examples, examples))
            for step, variables in _states(network, few[0], over_training):
                found = path_gradients(network.model, variables, *few, track=track("paths"))
                columns = pd.DataFrame(found._asdict()).astype(float).to_dict("records")
                rows += [row("path", step=step, **values) for values in columns]
    return pd.DataFrame(rows)


def _states(
    network: Network, images: np.ndarray, over_training: bool
) -> Iterator[tuple[int, Variables]]:
    if over_training and 0 not in network.steps:
        yield 0, with_statistics_of(network.model, network.initial(), images)
    for step in network.steps if over_training else network.steps[-1:]:
        yield step, network.at(step)


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """One block deleted; several deleted and swapped; and, of residual networks, the paths."""
    strips = [[Panel("One block deleted", lambda axes: _each(axes, table))]]
    for kind, title, words in (
        ("delete", "Several blocks deleted", "blocks deleted"),
        ("swap", "Blocks swapped", "pairs swapped"),
    ):
        own = table[table["kind"] == kind]
        if len(own):
            draw = functools.partial(_random, table=own, words=words)
            strips[0].append(Panel(title, draw))
    every = table[table["kind"] == "path"]
    if len(every):
        paths, means = _at_the_end(every), _mean_lengths(every)
        how = {"xlabel": "blocks on the path", "scale": 100, "level": 0}
        strips.append(
            [tables.line_panel("Gradient of all paths of a length", paths, "length", "share",
                               ylabel="share of the gradient, %", **how),
             tables.line_panel("Norm of that part", paths, "length", "norm",
                               ylabel="norm, % of the whole's", **how)]
        )  # fmt: skip
        if means["step"].nunique() > 1:
            strips[-1].append(tables.line_panel("Length of paths in training", means, "step",
                                                "length", xlabel="step", ylabel="blocks on a path",
                                                marker="."))  # fmt: skip
    return strips


def _at_the_end(paths: pd.DataFrame) -> pd.DataFrame:
    return paths[paths["step"] == paths.groupby(["network", "seed"])["step"].transform("max")]


def _mean_lengths(paths: pd.DataFrame) -> pd.DataFrame:
    """By signed share, in the column "length": a row a network, seed and step."""
    keys = ["network", "family", "depth", "seed", "step"]
    products = paths.assign(length=paths["length"] * paths["share"])
    return products.groupby(keys, sort=False, as_index=False)["length"].sum(min_count=1)


def summarize(table: pd.DataFrame) -> list[str]:
    """Of each network what one block, and several, are worth; and which paths carry its gradient.

    Errors without one block are means over seeds; without several, medians over draws and seeds.
    """
    sentences = []
    for name, own in by(table, "network"):
        kinds, seeds = dict(list(by(own, "kind"))), tables.num_seeds(own)
        intact, chance = kinds["intact"]["error"].mean(), 1 - 1 / own["classes"].iloc[0]
        half_way = intact + (chance - intact) / 2
        each = kinds["delete_each"]
        median = tables.mean(each.groupby("seed")["error"].median())
        if intact > chance / 2:
            sentences.append(
                f"{name} ({seeds}) has an error of {percent(intact)} with all its blocks and of "
                f"{median.percent} without one (median over {each['block'].nunique()} blocks), "
                f"where chance is {percent(chance)}: too much to tell what a block is worth."
            )
        else:
            share = (each["error"] > half_way).mean()
            lead = "destroys" if median.mean > half_way else "does not destroy"
            sentences.append(
                f"Deleting one block {lead} {name} ({seeds}): its error goes from "
                f"{percent(intact)} to {median.percent} (median over {each['block'].nunique()} "
                f"blocks; {percent(share)} of them take it more than half-way to chance, "
                f"{percent(chance)})."
            )
            if "delete" in kinds:
                sentences.append(_smoothness(name, half_way, kinds["delete"]))
        if "path" in kinds:
            sentences.append(_effective(name, _at_the_end(kinds["path"])))
            means = _mean_lengths(kinds["path"])
            if means["step"].nunique() > 1:
                lengths = (
                    f"{tables.mean(own['length']).text('{:.1f}'.format)} after {step:,}"
                    for step, own in by(means.sort_values("step", kind="stable"), "step")
                )
                sentences.append(
                    f"In training {name}'s paths are, in blocks and by signed share, so long: "
                    f"{listed(lengths)} steps."
                )
    return sentences


def _smoothness(name: str, half_way: float, deleted: pd.DataFrame) -> str:
    """The smallest number of blocks from which on every larger one tried is past half-way."""
    medians = deleted.groupby("count")["error"].median()
    tried = ", ".join(f"{count:.0f}: {percent(error)}" for count, error in medians.items())
    past = lambda count: medians[count] > half_way
    for_good = list(itertools.takewhile(past, sorted(medians.index, reverse=True)))
    if not for_good:
        lead = "does not stay past" if any(map(past, medians.index)) else "never gets"
        return (
            f"{name} {lead} half-way to chance, whatever number of blocks is deleted "
            f"(medians over draws and seeds, {tried})."
        )
    first = f"{for_good[-1]:.0f} deleted blocks" if for_good[-1] > 1 else "the first deleted block"
    return (
        f"{name} is past half-way to chance from {first} on, of the numbers tried (medians over "
        f"draws and seeds, {tried})."
    )


def _effective(name: str, paths: pd.DataFrame) -> str:
    """Up to which length paths stand for the whole gradient, and how far the parts cancel."""
    if not np.isfinite(paths["share"]).all():
        return f"Along {name}'s paths no gradient arrives."
    longest, length, cancel = [], [], []
    for _, own in by(paths, "seed"):
        longest.append(own.loc[own["rest"] >= LEFT_OUT, "length"].max() + 1)
        length.append((own["length"] * own["share"]).sum())
        cancel.append(own["norm"].sum())
    blocks = paths["length"].max()
    longest = np.nan_to_num(longest)  # NaN where even the path of length 0 leaves nothing out.
    span = f"{min(longest):.0f}" + (f" to {max(longest):.0f}" if np.ptp(longest) else "")
    return (
        f"Of {name}'s {blocks:.0f} blocks, paths through at most {span} sum to the gradient at its "
        f"first block but for {percent(LEFT_OUT)} of its norm; by signed share paths are "
        f"{tables.mean(length).text('{:.1f}'.format)} blocks long, where the mean of all 2^"
        f"{blocks:.0f} is {blocks / 2:.1f}. The norms of the lengths' parts add up to "
        f"{tables.mean(cancel).text(number)} times the whole's."
    )


def _each(axes: Axes, table: pd.DataFrame) -> None:
    look = tables.looks(table)
    for name, own in by(table[table["kind"] == "intact"], "network"):
        level = 100 * own["error"].mean()
        axes.axhline(level, color=look[name].colour, linewidth=0.7, alpha=0.6)
    tables.draw_lines(
        axes, table[table["kind"] == "delete_each"], "block", "error", xlabel="deleted block",
        ylabel="error, %", scale=100, marker=".", limits=(0, 100),
    )  # fmt: skip


def _random(axes: Axes, table: pd.DataFrame, words: str) -> None:
    look, ends = tables.looks(table), []
    axes.set_ylim(0, 100)
    for name, own in by(table, "network"):
        this = look[name]
        axes.plot(
            own["count"], 100 * own["error"], ".", color=this.colour, markersize=4, alpha=0.5,
            clip_on=False,
        )  # fmt: skip
        medians = 100 * own.groupby("count", sort=False)["error"].median()
        axes.plot(medians.index, medians, color=this.colour, linestyle=tables.dashes(table, name))
        ends.append((medians.index[-1], medians.iloc[-1], this.label, this.colour))
    axes.set_xlabel(words)
    axes.set_ylabel("error, %")
    tables.finish(axes, table["count"], ends)
