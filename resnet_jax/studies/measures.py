"""The studies that look at weights as they are: from subjects to rows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from resnet_jax import studies as analysis
from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.studies.networks import Subject, Variables, spread
from resnet_jax.studies.progress import Tracker
from resnet_jax.studies.trainings import train_for

Row = dict[str, Any]

V2_TABLE_1 = (
    {"shortcut": "identity"},
    {"shortcut": "constant_scaling", "shortcut_scale": 0.5},
    {"shortcut": "exclusive_gating", "gate_bias": -6.0},
    {"shortcut": "shortcut_only_gating", "gate_bias": 0.0},
    {"shortcut": "shortcut_only_gating", "gate_bias": -6.0},
    {"shortcut": "identity", "option": "C"},
    {"shortcut": "dropout"},
)

_PATHS = 100
"""Drawn of a net at most, unless it has more lengths: a deep net gets fewer of each length."""


def responses(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "test",
) -> list[Row]:
    """See `resnet_jax.studies.responses`."""
    rows = []
    for subject in tracker("nets")(subjects):
        images, _ = subject.images(split, examples)
        found = analysis.responses.measure(subject.model, _ready(subject, images), images)
        rows += [
            {**subject.about(), "layer": place, "name": name, "std": float(std)}
            for place, (name, std) in enumerate(zip(found.layers, found.std, strict=True), 1)
        ]
    return rows


def gradients(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    variants: bool = False,
    steps: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.gradients`; `steps` > 0 also trains untrained nets so long."""
    if variants:
        subjects = [
            subject.variant(activation=activation, norm=norm)
            for subject in subjects
            for activation in ("relu", "tanh", "sigmoid")
            for norm in ("batch", "none")
        ]
    rows = []
    for subject in tracker("nets")(subjects):
        images, labels = subject.images(split, examples)
        for step, variables in _states(subject, steps, tracker):
            found = analysis.gradients.measure(subject.model, variables, images, labels)
            columns = zip(*found[:2], *(array.tolist() for array in found[2:]), strict=True)
            rows += [
                {**subject.about(step), "unit": unit, "layer": int(layer), "activation": activation,
                 "gradient": gradient, "weight_gradient": weight_gradient}
                for unit, layer, activation, gradient, weight_gradient in columns
            ]  # fmt: skip
    return rows


def lesions(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "test",
    most_units: int = 60,
    repeats: int = 10,
    seed: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.lesions`; of deep nets `most_units` units, evenly spread."""
    rows = []
    for subject in subjects:
        subject.require_trained("lesions")
        images, labels = subject.images(split, examples)
        about = {**subject.about(), "classes": subject.model.num_classes}
        net = (subject.model, subject.last(), images, labels)
        count = subject.model.architecture.num_blocks
        track = lambda what, label=subject.label: tracker(f"{label}, {what}")
        row = lambda kind, about=about, **values: {**about, "kind": kind, **values}

        whole = analysis.lesions.error_with(subject.model, net[1], np.ones(count, bool), *net[2:])
        rows.append(row("intact", error=whole))
        units = spread(count, most_units)
        errors = analysis.lesions.delete_each(*net, units=units, track=track("each unit"))
        rows += [
            row("delete_each", unit=int(unit) + 1, error=float(error))
            for unit, error in zip(units, errors, strict=True)
        ]
        for kind, act, most in (
            ("delete", analysis.lesions.delete_random, count - 1),
            ("swap", analysis.lesions.swap_random,
             min(count - 1, analysis.lesions.num_pairs(subject.model))),
        ):  # fmt: skip
            counts = [number + 1 for number in spread(most, 8)] if most else []
            errors = act(*net, counts=counts, repeats=repeats, seed=seed, track=track(kind))
            rows += [
                row(kind, units=number, repeat=repeat, error=float(error))
                for number, drawn in zip(counts, errors, strict=True)
                for repeat, error in enumerate(drawn)
            ]
        if not subject.is_plain:
            lengths = range(count + 1)
            draws = max(min(repeats, _PATHS // len(lengths)), 1)
            found = analysis.lesions.path_gradients(
                *net, lengths=lengths, repeats=draws, seed=seed, track=track("paths")
            )
            rows += [
                row("path", length=int(length), share=float(share), gradient=float(gradient))
                for length, share, gradient in zip(*found, strict=True)
            ]
    return rows


def landscape(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 256,
    split: str = "train",
    points: int = 15,
    reach: float = 1.0,
    seed: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.landscape`; the grid has `points` × `points` points."""
    if points < 3 or points % 2 == 0:
        raise InputError(f"points={points}: must be odd, so that the weights themselves are one")
    grid = np.linspace(-reach, reach, points)
    rows = []
    for subject in subjects:
        images, labels = subject.images(split, examples)
        about = subject.about()
        variables = _ready(subject, images)
        directions = tuple(
            analysis.landscape.direction(variables["params"], 2 * seed + axis) for axis in (0, 1)
        )
        found = analysis.landscape.surface(
            subject.model, variables, images, labels, directions, grid, grid,
            track=tracker(subject.label),
        )  # fmt: skip
        rows += [
            {**about, "kind": "surface", "x": float(x), "y": float(y),
             "loss": float(found.loss[row, column]), "error": float(found.error[row, column])}
            for row, y in enumerate(grid) for column, x in enumerate(grid)
        ]  # fmt: skip
        steps = sorted({0, *subject.steps})
        if len(steps) >= 3:
            weights = [subject.at(step)["params"] for step in steps]
            path = analysis.landscape.trajectory(weights)
            rows += [
                {**about, "kind": "trajectory", "at_step": step, "x": float(x), "y": float(y),
                 "explained_x": float(path.explained[0]), "explained_y": float(path.explained[1])}
                for step, (x, y) in zip(steps, path.coordinates, strict=True)
            ]  # fmt: skip
    return rows


def shattering(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 128,
    split: str = "train",
    nearness: float = 0.1,
    depths: tuple = (8, 14, 20, 32, 56),
    seed: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.shattering`; `depths` are of untrained nets of the same kind."""
    rows, asked = [], []
    for subject in subjects:
        family = subject.config.model.name.rsplit("-", 1)[0]
        own = subject.about(0)["depth"]
        kinds = [subject.variant(name=f"{family}-{depth}") for depth in depths if depth != own]
        untrained = subject.variant()
        line = subject.label.replace(subject.config.model.name, family)
        asked += [(f"{line}, untrained", net, 0) for net in [*kinds, untrained]]
        if subject.steps:
            asked.append((f"{line}, trained", subject, subject.last_step))
    for line, subject, step in tracker("nets")(asked):
        images, _ = subject.images(split, examples)
        variables = subject.at(step) if step else _ready(subject, images)
        found = analysis.shattering.measure(subject.model, variables, images, nearness, seed)
        rows.append({**subject.about(step), "model": subject.label, "net": line, **found._asdict()})
    unique = {(row["net"], row["depth"], row["step"]): row for row in rows}.values()
    return sorted(unique, key=lambda row: (row["net"], row["depth"]))


def jacobian(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    places: int = 8,
    largest: int = 6,
    seed: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.jacobian`: at the split's first image, after `places` units.

    `examples` images give an untrained net its batch-norm statistics.
    """
    rows = []
    for subject in subjects:
        images, _ = subject.images(split, examples)
        spectra = analysis.jacobian.measure(
            subject.model,
            _ready(subject, images),
            images[0],
            spread(subject.model.architecture.num_blocks, places),
            largest,
            seed,
            tracker(subject.label),
        )
        layers = (subject.model.architecture.depth - 2) // subject.model.architecture.num_blocks
        rows += [
            {**subject.about(), "layer": 1 + layers * (spectrum.unit + 1), "place": place,
             "value": float(value), "rms": spectrum.rms, "exact": int(spectrum.exact)}
            for spectrum in spectra for place, value in enumerate(spectrum.values, 1)
        ]  # fmt: skip
    return rows


def shortcuts(
    subjects: Sequence[Subject],
    tracker: Tracker,
    *,
    examples: int = 64,
    split: str = "train",
    variants: bool = False,
    seed: int = 0,
) -> list[Row]:
    """See `resnet_jax.studies.shortcuts`; with `variants`, those of v2 Table 1, untrained."""
    if variants:
        subjects = [subject.variant(**axes) for subject in subjects for axes in V2_TABLE_1]
    rows = []
    for subject in tracker("nets")(subjects):
        images, labels = subject.images(split, examples)
        found = analysis.shortcuts.measure(
            subject.model, _ready(subject, images), images, labels, seed
        )
        products = [np.cumprod(factors) for factors in (found.measured, found.predicted)]
        about = {**subject.about(), "not_counted": analysis.shortcuts.not_counted(subject.model)}
        rows += [
            {**about, "passed": passed, "unit": int(unit) + 1, "factor": float(factor),
             "measured": float(measured), "predicted": float(predicted)}
            for passed, (unit, factor, measured, predicted) in enumerate(
                zip(found.units, found.measured, *products, strict=True), 1
            )
        ]  # fmt: skip
    return rows


def _ready(subject: Subject, images: np.ndarray) -> Variables:
    """The last weights; an untrained net's batch-norm statistics are those of the images."""
    if subject.steps:
        return subject.last()
    return with_statistics_of(subject.model, subject.initial(), images)


def _states(subject: Subject, steps: int, tracker: Tracker) -> Iterator[tuple[int, Variables]]:
    """The weights at the start and at every checkpoint, or after a short training."""
    for step in sorted({0, *subject.steps}):
        yield step, subject.at(step)
    if steps and not subject.steps:
        trained, _ = train_for(subject, subject.initial(), steps, steps, tracker(subject.label))
        yield steps, trained
