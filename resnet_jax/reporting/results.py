"""A run as a report sees it, and the group of runs that differ in nothing but the seed."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from resnet_jax.reporting import naming
from resnet_jax.runs import RUNTIME_FIELDS, Run

FINISHED = ("completed", "diverged")

NOT_WHAT = frozenset({*RUNTIME_FIELDS, "log_every", "evaluate_every", "checkpoint_every"})
"""Fields of the config that say where a run runs and how often it looks, not what it is."""

CONTENT = ("status", "diverged_at", "train_loss", "train_error", "test_loss", "test_error")
"""Figures of a summary that are the same in every copy of a run, archived ones too."""

ROW_CONTENT = ("step", "split", "loss", "error")

_LENGTH = ("num_steps", "batch_size")
"""Fields that must agree for nets of two depths to be compared."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
      name: of its folder; with several work folders, after the name of its own.
      run: as read from disk.
      settings: the flat config, less the seed and `NOT_WHAT`.
      declared: what a sweep says of the run: all that is known of one that has not started, or
        whose config cannot be read.
      recipe: what the sweep says of its recipe: "paper", "shortened" or "other"; else None.
      dataset, model: by name; `family` is one of `naming.FAMILIES`, `depth` in weighted layers.
      seed: as the config has it.
    """

    name: str
    run: Run
    settings: dict[str, Any]
    declared: dict[str, Any]
    recipe: str | None
    dataset: str
    model: str
    family: str
    depth: int | None
    seed: Any

    @property
    def status(self) -> str:
        return str(self.run.status)

    @property
    def summary_is_there(self) -> bool:
        return self.run.summary is not None

    @property
    def seed_key(self) -> str:
        """Tells seeds apart; a run whose seed is unknown stands for one of its own."""
        return f"run {self.name}" if self.seed is None else naming.as_text(self.seed)

    @property
    def identity(self) -> tuple:
        """Equal for two copies of one run: what decides its result, its seed, what came of it."""
        stated = {key: value for key, value in self.settings.items() if value is not None}
        summary = self.run.summary
        if summary is None:
            came = [[row.get(field) for field in ROW_CONTENT] for row in self.run.rows]
        else:
            came = [summary.get(field) for field in CONTENT]
        if not came:  # Nothing has come of it yet: the folder alone tells it from others.
            came = str(self.run.path.resolve())
        return naming.as_text(stated), naming.as_text(self.seed), naming.as_text(came)

    @property
    def has_config(self) -> bool:
        return isinstance(self.run.config, Mapping) and bool(self.run.config)

    def final(self, field: str) -> float:
        """A figure of the summary, as it stands in the file; NaN if there is none."""
        return number((self.run.summary or {}).get(field))

    @property
    def steps(self) -> float:
        """Steps taken so far, or NaN: the summary's, the divergence's, or the last row's."""
        summary = self.run.summary or {}
        if self.status == "diverged":
            return number(summary.get("diverged_at"))
        taken = number(summary.get("num_steps"))
        return taken if not math.isnan(taken) or not self.run.rows else self.run.rows[-1]["step"]

    def curve(self, split: str, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of the rows that have a finite `field`.

        Runs that keep their test set for the end have "validation" rows in place of "test" rows.
        """
        if split == "test" and all(row["split"] != "test" for row in self.run.rows):
            split = "validation"
        rows = [row for row in self.run.rows if row["split"] == split]
        points = {row["step"]: number(row.get(field)) for row in rows}
        steps = np.array(sorted(s for s in points if not math.isnan(points[s])), np.float64)
        return steps, np.array([points[step] for step in steps], np.float64)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    `setting` tells the group from others of the same data set: the fields in which nets of one
    name differ, e.g. "order=full_preact"; empty where the name says it all.
    """

    dataset: str
    model: str
    family: str
    depth: int | None
    setting: str
    settings: dict[str, Any]
    results: tuple[Result, ...]
    chosen: str = ""
    """The optimiser's setting, where it was chosen among several, e.g. "learning_rate=0.03"."""

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{self.model} ({self.chosen})" if self.chosen else self.model

    @property
    def label(self) -> str:
        return f"{self.model}, {self.setting}" if self.setting else self.model

    @property
    def has_length(self) -> bool:
        return all(self.settings.get(field) is not None for field in _LENGTH)

    def having(self, *status: str) -> list[Result]:
        return [result for result in self.results if result.status in status]

    @property
    def completed(self) -> list[Result]:
        return self.having("completed")

    @property
    def diverged(self) -> list[Result]:
        return self.having("diverged")

    @property
    def share_diverged(self) -> float:
        """Of the seeds that have finished, in [0, 1]; 0 if there are none."""
        finished = self.count_seeds(*FINISHED)
        return self.count_seeds("diverged") / finished if finished else 0.0

    @property
    def unfinished(self) -> list[Result]:
        return [result for result in self.results if result.status not in FINISHED]

    def replicates(self, field: str) -> dict[Any, list[float]]:
        """A final figure of the completed runs that have it, by seed.

        Runs of one seed and config differ by rounding alone (other cores, devices or versions).
        They are no seeds of their own.
        """
        values: dict[Any, list[float]] = {}
        for result in self.completed:
            if not math.isnan(value := result.final(field)):
                values.setdefault(result.seed_key, []).append(value)
        return values

    def by_seed(self, field: str) -> dict[Any, float]:
        """A final figure for each seed, the mean of its replicates; other runs never enter."""
        return {seed: statistics.fmean(v) for seed, v in self.replicates(field).items()}

    def values(self, field: str) -> list[float]:
        """A final figure of every seed that has completed with one."""
        return list(self.by_seed(field).values())

    @property
    def gaps(self) -> list[float]:
        """Test less training error of the seeds that have both."""
        train, test = self.by_seed("train_error"), self.by_seed("test_error")
        return [test[seed] - train[seed] for seed in test if seed in train]

    def count_seeds(self, *status: str) -> int:
        """Distinct seeds of the runs of such a status; of all runs if none is named."""
        return len(
            {result.seed_key for result in (self.having(*status) if status else self.results)}
        )


def number(value: Any) -> float:
    """A figure from a file; NaN for what is absent, null or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def interpret(
    run: Run, name: str, declared: Mapping[str, Any] | None = None, recipe: str | None = None
) -> Result:
    """Finds out what a run is, from its config, its summary or what a sweep declared of it."""
    declared = dict(declared or {})
    config = run.config if isinstance(run.config, Mapping) else {}
    summary = run.summary or {}
    known = {f"{key}.name": summary[key] for key in ("model", "dataset") if summary.get(key)}
    settings = naming.flatten(config) or {**known, **declared}
    seed = settings.pop("seed", summary.get("seed"))
    settings = {key: value for key, value in settings.items() if key not in NOT_WHAT}
    declared = {k: v for k, v in declared.items() if k != "seed" and k not in NOT_WHAT}
    model = str(settings.get("model.name", "unknown"))
    dataset = str(settings.get("dataset.name", "unknown"))
    family, depth = naming.family_and_depth(model, naming.architecture(settings))
    return Result(name, run, settings, declared, recipe, dataset, model, family, depth, seed)


def group(results: Sequence[Result]) -> list[Group]:
    """Groups by the whole config, less the seed and `NOT_WHAT`; in the order of their showing.

    A field that is None is as one that a config of an earlier version lacks. A run without a
    readable config joins the one group that fits what its sweep declared of it.
    """
    members: dict[str, list[Result]] = {}
    for result in filter(lambda result: result.has_config, results):
        stated = {key: value for key, value in result.settings.items() if value is not None}
        members.setdefault(naming.as_text(stated), []).append(result)
    known = {key: group[0].settings for key, group in members.items()}
    for result in filter(lambda result: not result.has_config, results):
        fitting = [k for k, settings in known.items() if _fits(result.declared, settings)]
        key = fitting[0] if len(fitting) == 1 else naming.as_text(result.settings)
        members.setdefault(key, []).append(result)
    groups = [_group(list_of_runs) for list_of_runs in members.values()]
    return sorted(with_settings_told(groups), key=_order)


def _fits(declared: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return bool(declared) and all(
        key in settings and naming.as_text(settings[key]) == naming.as_text(value)
        for key, value in declared.items()
    )


def _group(results: list[Result]) -> Group:
    results = sorted(results, key=lambda result: naming.natural(result.name))
    first = next((result for result in results if result.has_config), results[0])
    return Group(
        first.dataset, first.model, first.family, first.depth, "", first.settings, tuple(results)
    )


def with_settings_told(groups: Sequence[Group], without: Iterable[str] = ()) -> list[Group]:
    """Fills in `setting`, from the fields in which networks of one name and data set differ.

    The length of the training is told wherever networks of one data set differ in it; the fields
    `without` are not told.
    """
    keys: dict[str, set[str]] = {}
    for dataset in {this.dataset for this in groups}:
        own = [this for this in groups if this.dataset == dataset]
        lengths = naming.differing(this.settings for this in own if this.has_length)
        keys[dataset] = set(lengths) & set(_LENGTH)
        for model in {this.model for this in own}:
            twins = (this.settings for this in own if this.model == model)
            keys[dataset].update(naming.differing(twins))
        keys[dataset] -= set(without)
    return [
        dataclasses.replace(
            this, setting=naming.describe_settings(this.settings, sorted(keys[this.dataset]))
        )
        for this in groups
    ]


def _order(this: Group) -> tuple:
    return (
        naming.natural(this.dataset),
        naming.natural(this.setting),
        naming.FAMILIES.index(this.family),
        this.depth or 0,
        naming.natural(this.model),
    )
