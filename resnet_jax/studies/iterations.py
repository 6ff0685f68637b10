"""Does longer training cure a plain network? (v1 §4.1, footnote: three times the steps did not.)"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting.style import Panel
from resnet_jax.studies import tables
from resnet_jax.studies.networks import Network, label, told_apart
from resnet_jax.studies.study import Tracker
from resnet_jax.studies.tables import by, style
from resnet_jax.training.run import train

TRAINS = True

CURED = 0.01
"""A training error within one point of the shallower network's."""


def measure(networks: Sequence[Network], tracker: Tracker, *, times: int = 3) -> pd.DataFrame:
    """Rows of the metrics of runs that differ in length, the shallow networks' too.

    Where all runs of a network have one length, runs `times` as long are trained, one a seed, each
    in a folder within the first, so that reports and studies of the sweep do not take them for its
    runs. Rerun the command to resume them.

    Raises:
      InputError: `times` is below 2, or a run is not complete.
    """
    if times < 2:
        raise InputError(f"times={times}: must be at least 2")
    networks, rows = told_apart(networks, without=["num_steps", "status"]), []
    for name in dict.fromkeys(network.label for network in networks):
        members = [network for network in networks if network.label == name]
        is_one_length = len({network.recipe.num_steps for network in members}) == 1
        for multiple in (1, times) if is_one_length else (1,):
            for network in members:
                rows += _rows(network, _run_folder(network, tracker.folder, multiple))
    return pd.DataFrame(rows)


def _rows(network: Network, path: Path) -> list[dict]:
    run = runs.read_run(path)
    if run.summary is None:
        raise InputError(f"workdir={str(path)!r}: this run is not complete")
    recipe = runs.load_recipe(path)
    common = {
        **network.about(recipe.num_steps),
        "settings": tables.settings(network.label),
        "num_steps": recipe.num_steps,
        "final_train_error": run.summary["train_error"],
        "final_test_error": run.summary["test_error"],
    }
    return [
        {**common, "split": row["split"], "at_step": row["step"], "error": row["error"]}
        for row in run.rows
    ]


def _run_folder(network: Network, folder: Path, times: int) -> Path:
    """The folder of a run `times` as long as the network's, which is trained if need be."""
    if network.path is not None and times == 1:
        return network.path
    recipe = network.for_steps(times * network.recipe.num_steps)
    if network.path is not None:
        path = network.path / "analysis" / "iterations" / f"{times}x"
    else:
        name = label(recipe).replace(", ", "-")
        path = folder / f"{name}-seed{recipe.seed}-{recipe.num_steps}-steps"
    code = train(recipe, path)
    if code:  # Stopped and saved, as `train` has said.
        sys.exit(code)
    return path


def plot(table: pd.DataFrame) -> list[list[Panel]]:
    """Training error against steps, every length of every network."""
    return [[Panel("Training error", lambda axes: _curves(axes, table))]]


def summarize(table: pd.DataFrame) -> list[str]:
    """Both lengths of each network; then whether the deep one comes to where the shallow one is."""
    finals = {key: own.drop_duplicates("seed") for key, own in by(table, "network", "num_steps")}
    lengths = {name: sorted(own["num_steps"].unique()) for name, own in by(table, "network")}
    twice = [name for name, own in lengths.items() if len(own) > 1]
    if not twice:
        return ["No network was trained for two lengths: nothing can be said."]
    sentences = []
    for name in twice:
        short, long = lengths[name][0], lengths[name][-1]
        sentences.append(
            f"{name} has a training error of {_shown(finals[name, short])} after {short:,} steps "
            f"and {_shown(finals[name, long])} after {long:,}, {long / short:.3g} times as many."
        )
    first = table.drop_duplicates("network").set_index("network")
    for name in twice:
        other, shallower = _shallower(first, name)
        if other is not None:
            sentences.append(_verdict(name, other, lengths, finals))
        elif shallower:
            sentences.append(f"No shallower network has the settings of {name} to compare it with.")
    return sentences


def _shallower(first: pd.DataFrame, name: str) -> tuple[str | None, bool]:
    """The deepest of the family's shallower networks with the same settings; is any shallower?

    If none has them, one that differs in what `tables.compared` leaves out stands in.
    """
    this = first.loc[name]
    found = first[(first["family"] == this["family"]) & (first["depth"] < this["depth"])]
    alike = found[found["settings"] == this["settings"]]
    if alike.empty:
        alike = found[found.index.map(tables.compared) == tables.compared(name)]
    return alike["depth"].astype(float).idxmax() if len(alike) else None, len(found) > 0


def _verdict(deep: str, shallow: str, lengths: dict, finals: dict) -> str:
    """From the gaps at lengths that both have; the last is that of the deep one's longest.

    A gap that closes only because the shallow network was not trained as long is no cure; one that
    stays open although it was not is none, either.
    """
    long = lengths[deep][-1]
    beside = max((steps for steps in lengths[shallow] if steps <= long), default=None)
    if beside is None:
        return f"All runs of {shallow} are longer than those of {deep}, so they cannot be compared."
    pairs = [(steps, steps) for steps in lengths[deep] if steps in lengths[shallow]]
    pairs += [(long, beside)] if beside < long else []
    errors = [
        tuple(finals[key]["final_train_error"] for key in ((deep, own), (shallow, other)))
        for own, other in pairs
    ]
    if any(values.isna().any() for both in errors for values in both):
        return f"A run of {deep} or {shallow} diverged, so their errors cannot be compared."
    told = [
        f"{100 * (ours.mean() - theirs.mean()):.1f} points above {shallow} after {own:,} steps"
        + (f" against {other:,}" if other < own else "")
        for (own, other), (ours, theirs) in zip(pairs, errors, strict=True)
    ]
    text = f"{deep} is {' and '.join(told)}"
    found = tables.difference(*errors[-1])
    if found is None:
        seeds = tables.undecided(finals[deep, long], finals[shallow, beside])
        return f"{text}: whether longer training cures it is {seeds}."
    interval = f"95% interval of the last {100 * found.low:.1f} to {100 * found.high:.1f}"
    if found.low > CURED:
        return f"{text} ({interval}): longer training does not cure it."
    if found.high <= CURED and beside == long:
        return f"{text} ({interval}): longer training cures it."
    return f"{text} ({interval}): whether longer training cures it is undecided."


def _shown(finals: pd.DataFrame) -> str:
    if finals["final_train_error"].isna().any():
        return f"none ({tables.num_seeds(finals)}; diverged)"
    found = tables.mean(finals["final_train_error"])
    return f"{found.percent} ({tables.num_seeds(finals)})"


def _curves(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_ylim(0, 100)
    ends = []
    training = table[(table["split"] == "train") & table["error"].notna()]
    for index, ((name, length), own) in enumerate(by(training, "network", "num_steps")):
        colour = style.SERIES[index % len(style.SERIES)]
        for _, one in by(own, "seed") if own["seed"].nunique() > 1 else ():
            axes.plot(one["at_step"], 100 * one["error"], color=colour, linewidth=0.5, alpha=0.35)
        middle = 100 * own.groupby("at_step")["error"].median()
        axes.plot(middle.index, middle, color=colour, linewidth=1.4)
        ends.append((middle.index[-1], middle.iloc[-1], f"{name}, {length:,} steps", colour))
    axes.set_xlabel("step")
    axes.set_ylabel("training error, %")
    tables.finish(axes, [0, *training["at_step"]], ends)
