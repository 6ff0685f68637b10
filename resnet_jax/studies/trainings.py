"""The studies that train: from subjects to rows."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax import studies as analysis
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe
from resnet_jax.runtime import parallel
from resnet_jax.studies.batches import batches
from resnet_jax.studies.networks import Subject, Variables, label, settings
from resnet_jax.studies.progress import Track, Tracker
from resnet_jax.training import trainer
from resnet_jax.training.run import train
from resnet_jax.training.state import Window
from resnet_jax.training.step import cross_entropy

Row = dict[str, Any]

_CURVE_POINTS = 40


def train_for(
    subject: Subject, variables: Variables, steps: int, every: int, track: Track
) -> tuple[Variables, list[Row]]:
    """Trains on from `variables` under the config's recipe, its schedule fitted to `steps`.

    Returns:
      The weights, and rows of `at_step`, `loss` and `error`, as the optimiser saw them: means over
      `every` so many steps, counted back from the end, and over what is left at the beginning.
    """
    run = trainer.build(subject.config.replace(num_steps=steps, num_devices=None))
    advance, data, place = run.make_advance(), run.splits["train"], parallel.replicated(run.mesh)
    state = run.initial_state().replace(
        params=jax.device_put(variables["params"], place),
        batch_stats=jax.device_put(variables["batch_stats"], place),
    )
    rows = []
    for step in track(range(steps)):
        state = advance(state, data, step, step + 1)
        if (steps - step - 1) % every == 0:
            window = jax.device_get(state.window)
            count = int(window.num_steps)
            rows.append(
                {"at_step": step + 1, "loss": float(window.loss) / count,
                 "error": float(window.error) / count}
            )  # fmt: skip
            state = state.replace(window=jax.device_put(Window.empty(), place))
    return jax.device_get(state.variables), rows


def constructed(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "train",
    depth: int = 0,
    steps: int = 100,
) -> list[Row]:
    """See `resnet_jax.studies.constructed`; `depth` 0 is three times as many units.

    The net that is built is trained on for `steps`; the net from scratch gets these and, before
    them, as many as the shallow net had. `at_step` counts the shallow net's steps too.
    """
    rows = []
    for subject in subjects:
        subject.require_trained("constructed")
        deep = _deeper(subject, depth)
        images, labels = subject.images(split, examples)
        shallow_weights = subject.last()
        built = analysis.constructed.deepen(
            subject.model, shallow_weights, deep.model, images, subject.config.seed
        )
        had = subject.last_step
        about = {**deep.about(0), "from": subject.label, "from_step": had}
        before = _evaluate(subject, shallow_weights, images, labels)
        after = _evaluate(deep, built, images, labels)
        difference = float(np.abs(before["logits"] - after["logits"]).max())
        size = float(np.abs(before["logits"]).max())
        for start, found in (("shallow", before), ("constructed", after)):
            rows.append(
                {**about, "start": start, "kind": "evaluated", "at_step": had,
                 "loss": found["loss"], "error": found["error"],
                 "logits_difference": difference, "logits_size": size}
            )  # fmt: skip
        every = max(min((had + steps) // _CURVE_POINTS, steps // 4), 1)
        starts = (("constructed", built, had), ("scratch", deep.initial(), 0)) if steps else ()
        for start, weights, begin in starts:
            track, here = tracker(f"{deep.label}, {start}"), {**about, "start": start}
            ended, curve = train_for(deep, weights, had + steps - begin, every, track)
            rows += [
                {**here, "kind": "training", **row, "at_step": begin + row["at_step"]}
                for row in curve
            ]
            found = _evaluate(deep, ended, images, labels)
            rows.append(
                {**here, "kind": "evaluated", "at_step": had + steps, "loss": found["loss"],
                 "error": found["error"]}
            )  # fmt: skip
    return rows


def iterations(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    times: int = 3,
) -> list[Row]:
    """Training curves of runs of one net that differ in length.

    Where all runs of a net have one length, a run `times` as long is trained in a folder of its
    own beside the first, as `experiments.train` does: stopped, the same command goes on.
    """
    if times < 2:
        raise InputError(f"times={times}: must be at least 2")
    by_label: dict[str, list[Subject]] = {}
    for subject in subjects:
        by_label.setdefault(label(subject.config), []).append(subject)
    paths: list[Path] = []
    depths = [members[0].about()["depth"] for members in by_label.values()]
    for members in by_label.values():
        own = [_run_folder(subject, tracker.folder, 1) for subject in members]
        paths += own
        reference = members[0].about()["depth"] == min(depths) < max(depths)
        if len({subject.config.num_steps for subject in members}) == 1 and not reference:
            paths.append(_run_folder(members[0], tracker.folder, times))
    rows = []
    for path in paths:
        run = runs.read_run(path)
        config = Recipe.from_config(run.config)
        about = Subject(config, path, label(config)).about()
        if run.summary is None:
            raise InputError(f"workdir={str(path)!r}: this run is not complete")
        common = {
            **about,
            "model": label(config),
            "settings": settings(config),
            "num_steps": run.config["num_steps"],
            "seed": run.config["seed"],
            "final_train_error": run.summary["train_error"],
            "final_test_error": run.summary["test_error"],
        }
        rows += [
            {**common, "split": row["split"], "at_step": row["step"], "error": row["error"]}
            for row in run.rows
        ]
    return rows


def _run_folder(subject: Subject, folder: Path, times: int) -> Path:
    """The folder of a run `times` as long as the subject, which is trained if need be."""
    if subject.path is not None and times == 1:
        return subject.path
    config = ConfigDict(subject.config.to_dict())
    config.num_steps, config.num_devices = times * config.num_steps, None
    if subject.path is not None:
        path = subject.path.with_name(f"{subject.path.name}-{times}x")
    else:
        name = label(config).replace(", ", "-")
        path = folder / f"{name}-seed{config.seed}-{config.num_steps}-steps"
    code = train(config, path)
    if code:  # Stopped and saved, as `train` has said.
        sys.exit(code)
    return path


def _deeper(subject: Subject, depth: int) -> Subject:
    own = subject.about()["depth"]
    family = subject.config.model.name.rsplit("-", 1)[0]
    depth = depth or 3 * (own - 2) + 2
    if depth <= own:
        raise InputError(f"depth={depth}: must be above {own}, the depth of {subject.label}")
    return subject.variant(name=f"{family}-{depth}")


def _evaluate(
    subject: Subject, variables: Variables, images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    with jax.default_matmul_precision("highest"):  # Two nets' logits are compared.
        logits = np.concatenate(
            [np.asarray(_logits(subject.model, variables, part)) for (part,) in batches(images)]
        )
    return {
        "logits": logits,
        "loss": float(cross_entropy(logits, labels).mean()),
        "error": float((logits.argmax(-1) != labels).mean()),
    }


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Any, variables: Variables, images: jax.Array) -> jax.Array:
    return model.apply(variables, images, train=False)
