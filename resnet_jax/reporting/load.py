"""Finds all runs of the given work folders, and groups those that differ in nothing but the seed.

Runs are those that are there and those that a sweep awaits.
"""

import base64
import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from resnet_jax.data.datasets import compare_fingerprints
from resnet_jax.errors import InputError
from resnet_jax.reporting import naming
from resnet_jax.reporting.statistics import Sample, summarize
from resnet_jax.runs import LEGACY_DEFAULTS, RUNTIME_FIELDS, Run, find_runs, read_run
from resnet_jax.runs.recipe import as_fractions, is_used

FINISHED = ("completed", "diverged")
STARTED = (*FINISHED, "partial", "failed")

NOT_COMPARED = frozenset({*RUNTIME_FIELDS, "log_every", "evaluate_every", "checkpoint_every"})
"""Fields of the config that say where a run runs and how often it looks, not what it is."""

CONTENT = ("status", "diverged_at", "train_loss", "train_error", "test_loss", "test_error")
"""Figures of a summary that are the same in every copy of a run, archived ones too."""

ROW_CONTENT = ("step", "split", "loss", "error")

_BOUNDARIES = "schedule.boundaries"

_LENGTH = ("num_steps", "batch_size")
"""Fields in which networks of one data set are always told apart."""

_WARMUP = "schedule.warmup"
_WARMED_UP_FROM = 110
"""Layers from which v1 warms up, till the training error is below a bound, and not before (§4.2):
so its depths differ in the warm-up and are compared all the same."""

_OF_FAMILY = frozenset(
    f"model.{axis}"
    for axis in (
        *("shortcut", "option", "option_a_padding", "order", "block"),
        *("shortcut_scale", "branch_scale", "gate_bias", "dropout_rate"),
    )
)
"""Fields in which a family may differ from another and still be compared: those that make it one,
and the block, of which `verdicts` compares only what can be depths of one another."""

WEIGHTS = ("init_from", "converted_from")
"""Fields that say whose weights a network starts from. Weights are those of one network, so that
depths are compared by whether they were given any."""

DATA = "data"
"""The setting that `tell_data_apart` gives to runs of one data set's name on different data."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
      name: of its folder; with several work folders, after the name of its own.
      run: as read from disk.
      settings: the flat config, less the seed, `NOT_COMPARED` and what has no effect, with
        its boundaries as parts of the run; and perhaps `DATA`.
      declared: what a sweep says of the run: all that is known of one that has not started, or
        whose config cannot be read.
      recipe: what the sweep says of its recipe: "paper", "shortened" or "other"; else None.
      dataset, model: by name (see `naming.usual_name`); `family` is one of `naming.FAMILIES`,
        `depth` in weighted layers.
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
        """The run's; "damaged" where its config cannot be read, so that nobody knows what it is."""
        unknown = not self.has_config and self.run.status in (*FINISHED, "partial")
        return "damaged" if unknown else str(self.run.status)

    @property
    def seed_key(self) -> str:
        """Tells seeds apart; a run whose seed is unknown stands for one of its own."""
        # Two work folders of one name may each have a run of that name.
        return f"run {self.run.path.resolve()}" if self.seed is None else naming.as_text(self.seed)

    @property
    def stated(self) -> dict[str, Any]:
        """The settings less those that are None, which configs of earlier versions may lack."""
        return {key: value for key, value in self.settings.items() if value is not None}

    @property
    def planned(self) -> tuple[str, str]:
        """Settings and seed."""
        return naming.as_text(self.stated), naming.as_text(self.seed)

    @property
    def identity(self) -> tuple:
        """Equal for two copies of one run: what decides its result, its seed, what came of it."""
        summary = self.run.summary
        if summary is None:
            came: Any = [[row.get(field) for field in ROW_CONTENT] for row in self.run.rows]
        else:
            came = [summary.get(field) for field in CONTENT]
        if not came:  # Nothing has come of it yet: the folder alone tells it from others.
            came = str(self.run.path.resolve())
        return (*self.planned, *map(naming.as_text, (self.run.info.get("data"), came)))

    @property
    def commits(self) -> list[str]:
        """In short, of all its parts; "+" stands for uncommitted changes, see `runs`."""
        earlier = self.run.info.get("earlier")
        parts = [*(earlier if isinstance(earlier, list) else []), self.run.info]
        found = [str(part.get("commit") or "") for part in parts if isinstance(part, Mapping)]
        short = (commit[:7] + ("+" if commit.endswith("+") else "") for commit in found if commit)
        return list(dict.fromkeys(short))

    @property
    def has_config(self) -> bool:
        """Whether the run's own config says what it is."""
        is_there = isinstance(self.run.config, Mapping) and bool(self.run.config)
        return is_there and "model.name" in self.settings

    def final(self, field: str) -> float:
        """A figure of the summary, as it stands in the file; NaN if there is none."""
        return number((self.run.summary or {}).get(field))

    @property
    def steps(self) -> float:
        """Steps taken so far, or NaN: the summary's, the divergence's, or the last row's."""
        summary = self.run.summary or {}
        if self.run.status == "diverged":
            return number(summary.get("diverged_at"))
        taken = number(summary.get("num_steps"))
        return taken if not math.isnan(taken) or not self.run.rows else self.run.rows[-1]["step"]

    @property
    def test_split(self) -> str:
        """What its curves have: "validation" for a run that keeps its test set for the end."""
        splits = {row["split"] for row in self.run.rows}
        return "validation" if "validation" in splits and "test" not in splits else "test"

    def curve(self, split: str, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of the rows that have a finite `field`; of "test", of `test_split`."""
        split = self.test_split if split == "test" else split
        rows = [row for row in self.run.rows if row["split"] == split]
        points = {row["step"]: number(row.get(field)) for row in rows}
        steps = np.array(sorted(s for s in points if not math.isnan(points[s])), np.float64)
        return steps, np.array([points[step] for step in steps], np.float64)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    `setting` tells the group from others of the same data set: the fields in which networks of one
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
    axes: str = ""
    """What makes it another network than its family's of that name, e.g. "shortcut=dropout"; it is
    compared with other families all the same."""

    @property
    def name(self) -> str:
        """For sentences."""
        return self.model + self._in_brackets

    @property
    def possessive(self) -> str:
        """E.g. "plain-56's (learning_rate=0.03)"."""
        return f"{self.model}'s{self._in_brackets}"

    @property
    def _in_brackets(self) -> str:
        told = ", ".join(filter(None, (self.axes, self.chosen)))
        return f" ({told})" if told else ""

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (self.model, self.axes, self.setting)))

    @property
    def has_config(self) -> bool:
        return any(result.has_config for result in self.results)

    @property
    def is_damaged(self) -> bool:
        """Whether nobody knows what its runs are: they are shown, but never compared."""
        return all(result.status == "damaged" for result in self.results)

    @property
    def has_length(self) -> bool:
        return all(self.settings.get(field) is not None for field in _LENGTH)

    def having(self, *status: str) -> list[Result]:
        """The runs of any of these states."""
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
        return {seed: fmean(v) for seed, v in self.replicates(field).items()}

    def values(self, field: str) -> list[float]:
        """A final figure of every seed that has completed with one."""
        return list(self.by_seed(field).values())

    def percents(self, field: str) -> list[float]:
        """The same in percent."""
        return [100 * value for value in self.values(field)]

    def sample(self, field: str) -> Sample:
        """Mean, spread and median of these percents over seeds."""
        return summarize(self.percents(field))

    @property
    def gaps(self) -> list[float]:
        """Test less training error of the seeds that have both, in percentage points."""
        train, test = self.by_seed("train_error"), self.by_seed("test_error")
        return [100 * (test[seed] - train[seed]) for seed in test if seed in train]

    def count_seeds(self, *status: str) -> int:
        """Distinct seeds of the runs of such a status; of all runs if none is named."""
        return len(
            {result.seed_key for result in (self.having(*status) if status else self.results)}
        )


def number(value: Any) -> float:
    """A figure from a file; NaN for what is absent, null, not a number or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # JSON has whole numbers of any size.
        return math.nan


def what_is_computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config without what says where a run runs and, where it decides nothing, how often it
    looks.
    """
    not_compared = NOT_COMPARED
    if settings.get("schedule.name") == "plateau":  # Its patience counts evaluations.
        not_compared -= {"evaluate_every"}
    return {key: value for key, value in settings.items() if key not in not_compared}


def interpret(
    run: Run, name: str, declared: Mapping[str, Any] | None = None, recipe: str | None = None
) -> Result:
    """Finds out what a run is, from its config, its summary or what a sweep declared of it."""
    declared = dict(declared or {})
    config = run.config if isinstance(run.config, Mapping) else {}
    summary = run.summary or {}
    known = {f"{key}.name": summary[key] for key in ("model", "dataset") if summary.get(key)}
    settings = naming.flatten(config) or {**known, **declared}
    if config:
        settings = LEGACY_DEFAULTS | settings
    seed = settings.pop("seed", summary.get("seed"))
    settings = _in_effect(what_is_computed(settings))
    declared = {k: v for k, v in declared.items() if k != "seed" and k not in NOT_COMPARED}
    for fields in (settings, declared):  # One network has one name.
        if "model.name" in fields:
            fields["model.name"] = naming.usual_name(str(fields["model.name"]))
    model = str(settings.get("model.name", "unknown"))
    dataset = str(settings.get("dataset.name", "unknown"))
    family, depth = naming.family_and_depth(model, naming.architecture(settings))
    return Result(name, run, settings, declared, recipe, dataset, model, family, depth, seed)


def _in_effect(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config that is the same for all ways to write down one schedule."""
    used = {key: value for key, value in settings.items() if is_used(key, settings)}
    boundaries, length = used.get(_BOUNDARIES), number(used.get("num_steps"))
    if isinstance(boundaries, list | tuple) and length > 0:
        used[_BOUNDARIES] = as_fractions(boundaries, length)
    return used


def tell_data_apart(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Numbers the data that runs of one data set's name saw, where these differ.

    Such runs get the setting `DATA`, and so are neither averaged nor compared with each other: a
    name and a folder do not say what lies there. A run that kept no fingerprint counts with the
    others where there is one kind of data alone.

    Returns:
      The results in their order, and a line for each data set whose runs saw different data.
    """
    kinds: dict[str, list[tuple[dict[str, Any], list[Result]]]] = {}
    for result in results:
        seen = result.run.info.get("data")
        if not isinstance(seen, dict) or difference_of_data(seen, seen):
            continue  # Of an earlier version, or damaged.
        of_name = kinds.setdefault(result.dataset, [])
        known = next((kind for kind in of_name if not difference_of_data(kind[0], seen)), None)
        if known is None:
            of_name.append((dict(seen), [result]))
        else:  # Two runs need not use the same splits.
            known[0]["splits"] = known[0]["splits"] | seen["splits"]
            known[1].append(result)
    kinds = {name: of_name for name, of_name in kinds.items() if len(of_name) > 1}
    place = {
        id(result): number
        for of_name in kinds.values()
        for number, (_, members) in enumerate(of_name, start=1)
        for result in members
    }
    told = [
        dataclasses.replace(result, settings=result.settings | {DATA: place[id(result)]})
        if id(result) in place
        else result
        for result in results
    ]
    return told, [_describe_kinds(name, of_name) for name, of_name in kinds.items()]


def _with_sources_told(results: Sequence[Result]) -> list[Result]:
    """One name for each run that gave its weights, as far as it is known, however it is spelled."""
    names: dict[str, str] = {}
    told = []
    for result in results:
        source = result.run.info.get("init_from_id")
        path = result.settings.get("init_from")
        if path is not None and isinstance(source, str):
            name = str(path) if path not in names.values() else f"{path} ({source})"
            changed = result.settings | {"init_from": names.setdefault(source, name)}
            result = dataclasses.replace(result, settings=changed)
        told.append(result)
    return told


def difference_of_data(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """`datasets.compare_fingerprints` of what two runs' configs hold, which may be damaged."""
    try:
        return compare_fingerprints(old, new)
    except (AttributeError, KeyError, TypeError):  # From a file, which may hold anything.
        return "one of them cannot be read"


def _describe_kinds(name: str, kinds: Sequence[tuple[dict[str, Any], list[Result]]]) -> str:
    listed = "; ".join(
        f"data={number}: {_some([result.name for result in members])}"
        for number, (_, members) in enumerate(kinds, start=1)
    )
    return (
        f"Runs on {name} saw different data, and are averaged and compared within one alone "
        f"({listed}). data=2 differs from data=1: {difference_of_data(kinds[0][0], kinds[1][0])}."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def group(results: Sequence[Result]) -> list[Group]:
    """Groups by the whole config, less the seed and `NOT_COMPARED`; in the order of their showing.

    A field that is None is as one that a config of an earlier version lacks. A run without a
    readable config joins the one group of its work folder that fits what its sweep declared of it:
    what a sweep does not declare is that of its base config, which is another sweep's only by luck.
    """
    members: dict[str, list[Result]] = {}
    for result in filter(lambda result: result.has_config, results):
        members.setdefault(naming.as_text(result.stated), []).append(result)
    known = {
        key: (group[0].settings, {result.run.path.parent for result in group})
        for key, group in members.items()
    }
    for result in filter(lambda result: not result.has_config, results):
        fitting = [
            key
            for key, (settings, workdirs) in known.items()
            if result.run.path.parent in workdirs and _fits(result.declared, settings)
        ]
        key = fitting[0] if len(fitting) == 1 else naming.as_text(result.settings)
        members.setdefault(key, []).append(result)
    return with_settings_told(list(map(_group, members.values())))


def _fits(declared: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return bool(declared) and _in_effect({**settings, **declared}) == settings


def _group(results: list[Result]) -> Group:
    results = sorted(results, key=lambda result: naming.natural(result.name))
    of = next((result for result in results if result.has_config), results[0])
    return Group(of.dataset, of.model, of.family, of.depth, "", of.settings, tuple(results))


def with_settings_told(groups: Sequence[Group], without: Iterable[str] = ()) -> list[Group]:
    """Fills in `setting`, from the fields in which a data set's networks differ.

    A value that more than half of a data set's networks have is not told. The length of the
    training, and which data it saw, are told wherever networks of one data set differ in it; the
    fields `without` are not told. Of runs without a config what is known is told where it is not
    that of all others, whose names they do not change. Returns the groups in the order of showing.
    """
    told = []
    for dataset in dict.fromkeys(this.dataset for this in groups):
        everything = [this for this in groups if this.dataset == dataset]
        own = [this for this in everything if this.has_config] or everything
        for this in (this for this in everything if own != everything and not this.has_config):
            differing = naming.differing([this.settings, *(other.settings for other in own)])
            fields = sorted({*differing, DATA} & set(this.settings) - {"model.name", *without})
            setting = naming.describe_settings(this.settings, fields)
            told.append(dataclasses.replace(this, setting=setting))
        shown = _with_warmup_of_depth(_with_weights_as_given(own))
        keys = _differing(shown)
        always = keys & {*_LENGTH, DATA}
        of_family = _OF_FAMILY & {*naming.differing(this.settings for this in shown)} - keys
        rare = naming.unusual((this.settings for this in shown), keys - always - set(without))
        for this, as_shown, fields in zip(own, shown, rare, strict=True):
            fields = sorted({*fields, *always} - set(without))
            setting = naming.describe_settings(as_shown.settings, fields)
            axes = naming.describe_settings(this.settings, _unlike_its_name(this, of_family))
            told.append(dataclasses.replace(this, setting=setting, axes=axes))
    return sorted(told, key=_order)


def _unlike_its_name(this: Group, fields: Iterable[str]) -> list[str]:
    """Those of the fields, of the network's section, that are not what its name stands for."""
    usual = naming.architecture({"model.name": this.model})
    value = lambda field: this.settings.get(field)
    return [f for f in sorted(fields) if value(f) != getattr(usual, f.removeprefix("model."), None)]


def _with_weights_as_given(groups: Sequence[Group]) -> list[Group]:
    """The groups with "given" for foreign weights, unless one network has them from several."""
    sources = {
        (field, this.model, naming.as_text(this.settings[field]))
        for this in groups
        for field in WEIGHTS
        if this.settings.get(field) is not None
    }
    several = collections.Counter((field, model) for field, model, _ in sources)
    told = {field for (field, _), count in several.items() if count > 1}
    given = {field: "given" for field, *_ in sources if field not in told}
    return [
        dataclasses.replace(
            this,
            settings=this.settings
            | {
                field: word for field, word in given.items() if this.settings.get(field) is not None
            },
        )
        for this in groups
    ]


def _with_warmup_of_depth(groups: Sequence[Group]) -> list[Group]:
    """The groups with "by_depth" for v1's warm-up, unless its networks break `_WARMED_UP_FROM`.

    They do if a deeper one has none, a shallower one has it, or two have different ones of it.
    """
    own = [
        (this.settings.get(_WARMUP) or "none", (this.depth or 0) >= _WARMED_UP_FROM, this.settings)
        for this in groups
        if this.has_length  # Of a run that has not started, the warm-up is not known.
    ]
    by_depth = all(
        (kind == "until_error") == is_deep
        for kind, is_deep, _ in own
        if kind in ("none", "until_error")
    )
    warm = [settings for kind, _, settings in own if kind == "until_error"]
    fields = {field for settings in warm for field in settings if field.startswith(_WARMUP)}
    if not warm or not by_depth or fields & {*naming.differing(warm)}:
        return list(groups)
    named = dict.fromkeys(fields) | {_WARMUP: "by_depth"}
    return [
        dataclasses.replace(this, settings=this.settings | named)
        if this.has_length and this.settings.get(_WARMUP) in (None, "none", "until_error")
        else this
        for this in groups
    ]


def _differing(groups: Sequence[Group]) -> set[str]:
    """The fields in which networks of one data set differ, but for what their names say.

    Those are all that differ between networks of one name; between depths of one family all but
    the name; between families all but the name and `_OF_FAMILY`.
    """
    differing = lambda members: set(naming.differing(this.settings for this in members))
    known = [this for this in groups if this.has_length]
    fields = differing(known) - _OF_FAMILY
    for family in naming.FAMILIES:
        fields |= differing(this for this in known if this.family == family)
    fields -= {"model.name"}
    for model in {this.model for this in groups}:
        fields |= differing(this for this in groups if this.model == model)
    return fields


def _order(this: Group) -> tuple:
    return (
        naming.natural(this.dataset),
        naming.natural(this.setting),
        naming.FAMILIES.index(this.family),
        this.depth or 0,
        naming.natural(this.model),
    )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a work folder says of itself; `recipe` is "paper", "shortened", "other" or None."""

    path: Path
    title: str
    paper: str | None
    recipe: str | None
    command: str | None
    declared: dict[str, dict[str, Any]]
    """Overrides of each run by name, in the sweep's order."""
    plan: str | None = None
    """The same of two folders of one sweep: its name, config and what all its runs have."""


@dataclasses.dataclass(frozen=True)
class Collection:
    """All that a report is about."""

    sweeps: list[Sweep]
    results: list[Result]
    groups: list[Group]
    problems: list[str]
    """Damaged files, one line each, with the name of the run."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What else a reader must know of the runs: copies that do not count, data that differ."""


def collect(workdirs: Sequence[Path]) -> Collection:
    """Reads run folders and folders of run folders.

    Raises:
      InputError: no folder given, one does not exist, or one holds no run.
    """
    if not workdirs:
        raise InputError("workdir: give at least one folder of a run or of runs")
    sweeps, results, problems = [], [], []
    for workdir in map(Path, workdirs):
        sweep, complaint = _read_sweep(workdir)
        prefix = f"{workdir.absolute().name}/" if len(workdirs) > 1 else ""
        found = _read_results(workdir, sweep, prefix)
        if not found:
            raise InputError(f"workdir={str(workdir)!r}: no runs found in this folder")
        sweeps.append(sweep)
        results += found
        problems += [f"{prefix}{line}" for line in complaint]
    results.sort(key=lambda result: naming.natural(result.name))
    results, copies = without_copies(results)
    results = _without_waiting_twice(results, {sweep.path: sweep.plan for sweep in sweeps})
    results, kinds = tell_data_apart(_with_sources_told(results))
    problems += [f"{result.name}: {line}" for result in results for line in result.run.problems]
    return Collection(sweeps, results, group(results), problems, copies + kinds)


def without_copies(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Every run once, though its folder is given twice or was copied; and which are left out.

    Copies have one id (written at a run's first start) and are of one config and seed, with which
    a copied folder may have been trained anew; or they have one identity (see `Result`). Of
    several, the one that came furthest stays.
    """
    kept: list[Result] = []
    copies: list[str] = []
    place: dict[tuple, int] = {}
    for result in results:
        run_id = result.run.info.get("run_id")
        keys = [
            result.identity,
            *([("id", naming.as_text(run_id), *result.planned)] if run_id else []),
        ]
        index = next((place[key] for key in keys if key in place), None)
        if index is None:
            index = len(kept)
            kept.append(result)
        else:
            old = kept[index]
            came = lambda this: (this.run.summary is not None, this.steps)
            further = came(result) > came(old)
            kept[index], copy = (result, old) if further else (old, result)
            copies.append(f"{copy.name} of {kept[index].name}")
        place |= dict.fromkeys(keys, index)
    if not copies:
        return kept, []
    noun = "run is a copy" if len(copies) == 1 else "runs are copies"
    return kept, [f"{len(copies)} {noun} of another and not counted: {_some(copies)}."]


def _without_waiting_twice(
    results: Sequence[Result], plans: Mapping[Path, str | None]
) -> list[Result]:
    """Less the runs that one folder of a sweep waits for and another folder of it has."""
    kept: dict[tuple, Result] = {}
    for result in sorted(results, key=lambda result: result.status == "missing"):
        plan, declared = plans.get(result.run.path.parent), naming.as_text(result.declared)
        key: tuple = (plan, result.run.path.name, declared)
        if plan is None or result.status != "missing":  # Copies that were trained anew are two.
            kept[result.run.path, result.name] = result
        kept.setdefault(key, result)
    stays = {id(result) for result in kept.values()}
    return [result for result in results if id(result) in stays]


def _read_results(workdir: Path, sweep: Sweep, prefix: str) -> list[Result]:
    runs = {run.name: run for run in find_runs(workdir)}
    for name in sweep.declared:
        if name not in runs:
            runs[name] = read_run(workdir / name)
    return [
        interpret(run, f"{prefix}{name}", sweep.declared.get(name), sweep.recipe)
        for name, run in runs.items()
    ]


def _read_sweep(workdir: Path) -> tuple[Sweep, list[str]]:
    path = workdir / "sweep.json"
    raw, problems = {}, []
    if path.exists():
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            common = dict(raw.get("common") or {})
            declared = {
                str(run["name"]): {**common, **(run.get("overrides") or {})} for run in raw["runs"]
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raw, problems = {}, [f"sweep.json: cannot be read ({type(error).__name__}: {error})"]
    if not raw:
        return Sweep(workdir, workdir.resolve().name, None, None, None, {}), problems
    title = raw.get("title") or raw.get("name") or workdir.resolve().name
    optional = {
        key: str(raw[key]) if raw.get(key) else None for key in ("paper", "recipe", "command")
    }
    plan = naming.as_text([raw.get(key) for key in ("name", "config", "common")])
    return Sweep(workdir, str(title), **optional, declared=declared, plan=plan), problems


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What a study found: the folder that holds it, text, and its figure as a data URL or None."""

    folder: Path
    name: str
    paragraphs: list[str]
    picture: str | None


def read_analyses(collection: Collection) -> list[Analysis]:
    """All analyses under the work folders and under their runs, in the order of these."""
    folders = [(sweep.path, "") for sweep in collection.sweeps]
    folders += [(result.run.path, f"{result.name}: ") for result in collection.results]
    found: dict[Path, Analysis] = {}
    for folder, prefix in folders:
        for path in sorted(folder.glob("analysis/*/finding.md")):
            name = f"{prefix}{path.parent.name.replace('_', ' ')}"
            found.setdefault(path.resolve(), _read_analysis(path, name[:1].upper() + name[1:]))
    return list(found.values())


def _read_analysis(path: Path, name: str) -> Analysis:
    blocks = path.read_text(encoding="utf-8", errors="replace").split("\n\n")
    paragraphs = [words for block in blocks if (words := " ".join(block.split()).lstrip("# "))]
    figure, picture = path.with_name("figure.svg"), None
    if figure.is_file():  # As an image, in which a script of an SVG would not run.
        encoded = base64.b64encode(figure.read_bytes()).decode()
        picture = f"data:image/svg+xml;base64,{encoded}"
    return Analysis(path.parent, name, paragraphs, picture)
