"""Does longer training cure a plain net? (v1 §4.1, footnote: three times the steps did not.)"""

import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, finish, percent

TITLE = "Longer training"

CURED = 0.01
"""A training error within one point of the shallower net's."""


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """Training error against steps, every length of every net."""
    names = ", ".join(by(rows, "net"))
    return [[Panel("Training error", f"Training error against steps, by length: {names}",
                   lambda axes: _curves(axes, rows))]]  # fmt: skip


def find(rows: Sequence[Row]) -> list[str]:
    """Whether the longer run brings the deep net to where the shallow one is."""
    sentences = []
    finals = {
        key: [first[0] for first in by(own, "seed").values()]
        for key, own in by(rows, "model", "num_steps").items()
    }
    for model, own in by(rows, "model").items():
        lengths = sorted(by(own, "num_steps"))
        if len(lengths) < 2:
            continue
        short, long = lengths[0], lengths[-1]
        errors = {length: _mean(finals[model, length]) for length in (short, long)}
        seeds = {length: len(finals[model, length]) for length in (short, long)}
        text = (
            f"{model} has a training error of {_shown(errors[short])} after {short:,} steps and "
            f"{_shown(errors[long])} after {long:,}, {long / short:.3g} times as many "
            f"({seeds[short]} and {seeds[long]} seed(s))"
        )
        sentences.append(f"{text}{_verdict(own[0], errors[long], rows)}")
    return sentences or ["No net was trained for two lengths: nothing can be said."]


def _verdict(this: Row, error: float, rows: Sequence[Row]) -> str:
    shallower = [
        row for row in rows if row["family"] == this["family"] and row["depth"] < this["depth"]
    ]
    if not shallower:
        return "; no shallower net of its family is there to say whether that cures it."
    alike = [row for row in shallower if row["settings"] == this["settings"]]
    reference = max(alike or shallower, key=lambda row: row["depth"])
    runs = by(by(rows, "model")[reference["model"]], "num_steps", "seed")
    firsts = [own[0] for own in runs.values()]
    shortest = min(column(firsts, "num_steps"))
    level = _mean([row for row in firsts if row["num_steps"] == shortest])
    if math.isnan(error) or math.isnan(level):
        return ": a run diverged, so the errors cannot be compared."
    beside = f"{reference['model']} has {percent(level)} after {shortest:,}"
    if error <= level + CURED:
        return f": longer training cures it ({beside})."
    return f": longer training does not cure it ({beside})."


def _mean(runs: Sequence[Row]) -> float:
    values = [row["final_train_error"] for row in runs]
    return math.nan if None in values else statistics.mean(values)


def _shown(error: float) -> str:
    return "none (diverged)" if math.isnan(error) else percent(error)


def _curves(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_ylim(0, 100)
    ends = []
    kinds = by([row for row in rows if row["split"] == "train"], "model", "num_steps", "seed")
    for index, ((model, length, seed), own) in enumerate(kinds.items()):
        colour = style.SERIES[index % len(style.SERIES)]
        drawn = [row for row in own if row["error"] is not None]
        errors = [100 * row["error"] for row in drawn]
        axes.plot(column(drawn, "at_step"), errors, color=colour, linewidth=1.4)
        ends.append((errors[-1], f"{model}, {length:,} steps, seed {seed}", colour))
    axes.set_xlabel("step")
    axes.set_ylabel("training error, %")
    finish(axes, [0, *column(rows, "at_step")], ends)
