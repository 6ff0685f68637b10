"""What is left of a trained net without some of its units (Veit et al. 2016)."""

import functools
import itertools
import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from resnet_jax.reporting.curves import Look
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import (
    Row,
    by,
    column,
    dashes,
    draw_lines,
    finish,
    looks,
    percent,
)

TITLE = "Lesions"


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """One unit deleted; several deleted and swapped; and, of residual nets, the paths."""
    kinds, names = by(rows, "kind"), ", ".join(looks(rows))
    strips = [[Panel("One unit deleted", f"Error without each unit: {names}",
                     lambda axes: _each(axes, rows))]]  # fmt: skip
    for kind, title, words in (
        ("delete", "Several units deleted", "units deleted"),
        ("swap", "Units swapped", "pairs swapped"),
    ):
        if kind in kinds:
            draw = functools.partial(_random, rows=kinds[kind], words=words)
            strips[0].append(Panel(title, f"Error against {words}: {names}", draw))
    if "path" in kinds:
        paths = kinds["path"]
        strips.append(
            [Panel("Gradient of a path", f"Gradient norm by length of path: {names}",
                   lambda axes: _paths(axes, paths, "gradient", "gradient norm of one path")),
             Panel("Gradient of all paths of a length", f"Their share of the sum: {names}",
                   lambda axes: _paths(axes, _weighted(paths), "total", "share of the sum, %"))]
        )  # fmt: skip
    return strips


def find(rows: Sequence[Row]) -> list[str]:
    """Of each net what one unit, and several, are worth; and which paths carry its gradient."""
    sentences = []
    for net, own in by(rows, "net").items():
        kinds = by(own, "kind")
        intact, chance = kinds["intact"][0]["error"], 1 - 1 / own[0]["classes"]
        errors = column(kinds["delete_each"], "error")
        median = statistics.median(errors)
        if intact > chance / 2:
            sentences.append(
                f"{net} has an error of {percent(intact)} with all its units: there is little that "
                "a lesion could take from it."
            )
            continue
        share = statistics.mean(error > intact + (chance - intact) / 2 for error in errors)
        lead = "destroys" if median > intact + (chance - intact) / 2 else "does not destroy"
        sentences.append(
            f"Deleting one unit {lead} {net}: its error goes from {percent(intact)} to "
            f"{percent(median)} (median over {len(errors)} units; {percent(share)} of them take it "
            f"more than half-way to chance, {percent(chance)})."
        )
        if "delete" in kinds:
            sentences.append(_smoothness(net, intact, chance, kinds["delete"]))
        if "path" in kinds:
            sentences.append(_effective(net, kinds["path"]))
    return sentences


def _smoothness(net: str, intact: float, chance: float, rows: list[Row]) -> str:
    """The smallest number of units from which on every larger one tried is past half-way."""
    medians = {n: statistics.median(column(own, "error")) for n, own in by(rows, "units").items()}
    past = lambda n: medians[n] > intact + (chance - intact) / 2
    tried = ", ".join(f"{n}: {percent(error)}" for n, error in medians.items())
    for_good = list(itertools.takewhile(past, sorted(medians, reverse=True)))
    if not for_good:
        lead = "does not stay past" if any(map(past, medians)) else "never gets"
        return f"{net} {lead} half-way to chance, whatever number of units is deleted ({tried})."
    first = f"{for_good[-1]} deleted units" if for_good[-1] > 1 else "the first deleted unit"
    return f"{net} is past half-way to chance from {first} on, of the numbers tried ({tried})."


def _effective(net: str, rows: list[Row]) -> str:
    """The lengths that hold 95% of the sum of gradients, and of the paths: the middle of each."""
    lengths, totals = np.array(column(rows, "length")), np.array(column(_weighted(rows), "total"))
    if not np.isfinite(totals).all() or not totals.sum():
        return f"Along {net}'s paths no gradient arrives."
    low, high = _middle(lengths, totals)
    shortest, longest = _middle(lengths, np.array(column(rows, "share")))
    return (
        f"95% of the gradient that reaches {net}'s first unit comes through paths of {low} to "
        f"{high} of {lengths[-1]} units; 95% of its paths have {shortest} to {longest}."
    )


def _middle(lengths: np.ndarray, weights: np.ndarray) -> tuple[int, int]:
    """The first and last length of the middle 95% of the weights."""
    cumulative = np.cumsum(weights) / weights.sum()
    low, high = np.searchsorted(cumulative, (0.025, 0.975))
    return lengths[low], lengths[min(high, len(lengths) - 1)]


def _weighted(rows: Sequence[Row]) -> list[Row]:
    """With `total`: what all paths of a length bring, in percent of the sum over lengths."""
    weighted = []
    for own in by(rows, "net").values():
        products = np.array([row["share"] * row["gradient"] for row in own])
        total = products.sum() or 1.0
        weighted += [
            {**row, "total": 100 * value / total} for row, value in zip(own, products, strict=True)
        ]
    return weighted


def _each(axes: Axes, rows: Sequence[Row]) -> None:
    draw_lines(
        axes, by(rows, "kind")["delete_each"], "unit", "error", xlabel="deleted unit",
        ylabel="error, %", scale=100, marker=".",
    )  # fmt: skip
    look = looks(rows)
    for row in by(rows, "kind")["intact"]:
        axes.axhline(100 * row["error"], color=look[row["net"]].colour, linewidth=0.7, alpha=0.6)
    axes.set_ylim(0, 100)


def _random(axes: Axes, rows: Sequence[Row], words: str) -> None:
    look, ends = looks(rows), []
    axes.set_ylim(0, 100)
    for net, own in by(rows, "net").items():
        this: Look = look[net]
        xs, ys = column(own, "units"), [100 * error for error in column(own, "error")]
        axes.plot(xs, ys, ".", color=this.colour, markersize=4, alpha=0.5)
        counts = by(own, "units")
        medians = [100 * statistics.median(column(part, "error")) for part in counts.values()]
        axes.plot(list(counts), medians, color=this.colour, linestyle=dashes(rows, net))
        ends.append((medians[-1], this.label, this.colour))
    axes.set_xlabel(words)
    axes.set_ylabel("error, %")
    finish(axes, column(rows, "units"), ends)


def _paths(axes: Axes, rows: Sequence[Row], y: str, words: str) -> None:
    drawn = [row for row in rows if row[y] > 0] if y == "gradient" else rows
    if not drawn:
        axes.text(0.5, 0.5, "zero everywhere", ha="center", transform=axes.transAxes)
        return
    draw_lines(
        axes, drawn, "length", y, xlabel="units on the path", ylabel=words, log=y == "gradient"
    )
