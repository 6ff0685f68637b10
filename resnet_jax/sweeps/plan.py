"""Which runs a sweep is made of: names, overrides, configs and commands; and its `sweep.json`.

    {"format": 1, "name": …, "title": …, "paper": … or null, "recipe": …, "config": …,
     "common": {…}, "command": …, "runs": [{"name": …, "overrides": {…}}, …]}

says for the report and for the next start what a sweep's folder is about. `common` holds what the
command line changed in all runs, `runs` all runs that any start of the sweep has planned.
"""

import dataclasses
import functools
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments, recipe
from resnet_jax.sweeps.grid import Overrides, Sweep
from resnet_jax.training.run import check_dataset

FORMAT = 1
MANIFEST = "sweep.json"

LONGEST_PERIODS = {
    "log_every": 50,
    "evaluate_every": 10,
    "checkpoint_every": 10,
    "schedule.warmup_steps": 10,
}
"""A run whose `num_steps` is scaled logs 50 times or more, evaluates and saves 10 times or more,
and warms up for a tenth of its length or less. Periods that are shorter already stay, and those
that the sweep varies or the command line sets."""


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of `experiments.train`.

    Attributes:
      name: of its folder.
      overrides: all that differs from the config's defaults for that network.
      argument: its --config, file.py:network[,field=value…].
      config: with the overrides.
    """

    name: str
    overrides: Overrides
    argument: str
    config: Recipe

    def command(self, workdir: Path) -> list[str]:
        """What follows "python" in the command of this run, in a sweep's folder."""
        flags = [f"--config={self.argument}", f"--workdir={workdir / self.name}"]
        return ["-m", "experiments.train", *flags]


def plan(
    sweep: Sweep,
    *,
    pattern: str | None = None,
    num_steps: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[PlannedRun]:
    """The runs of a sweep, in its order.

    Args:
      sweep: what to run.
      pattern: a regular expression; only runs whose name has a match for it are kept.
      num_steps: length of every run; None for the config's. See `LONGEST_PERIODS`.
      extra: further overrides of every run; they do not enter names.

    Raises:
      InputError: a pattern that matches nothing, an override of a field that is none or that
        the sweep varies in the runs that are kept, two runs of one name.
    """
    extra = dict(extra or {})
    if "num_steps" in extra:
        if num_steps is not None:
            raise InputError(f"num_steps={num_steps}: an override sets it, too; give one of them")
        if isinstance(extra["num_steps"], int):
            num_steps = extra.pop("num_steps")
    if num_steps is not None and num_steps < 1:
        raise InputError(f"num_steps={num_steps}: must be at least 1")
    chosen = _chosen(pattern, _named(sweep))
    for path in [*extra, *(["num_steps"] if num_steps else ())]:
        if any(path in overrides for overrides in chosen.values()):
            raise InputError(
                f"{path}: {sweep.name} varies this field, so that one value for all would train "
                "copies of one run under several names; choose runs with --filter, or edit the "
                "sweep's file"
            )
    planned = []
    for name, own in chosen.items():
        overrides = {**sweep.common, **own, **extra}
        if num_steps is not None:
            config = sweep.get_config(_argument(overrides))
            overrides |= _scaled(config, num_steps, {*own, *extra})
        argument = _argument(overrides)
        config = Recipe.from_config(sweep.get_config(argument))
        planned.append(PlannedRun(name, overrides, f"{sweep.config}:{argument}", config))
    return planned


def parse_overrides(texts: Sequence[str]) -> Overrides:
    """The fields and values of "field=value" texts; raises `InputError` for another text."""
    overrides: Overrides = {}
    for text in texts:
        name, fields = arguments.split(text, "")
        if name or not fields:
            raise InputError(f"override={text!r}: expected field=value")
        overrides |= fields
    return overrides


def check(
    sweep: Sweep, planned: Sequence[PlannedRun], workdir: Path, command_line: Overrides
) -> None:
    """Checks the runs before any starts; writes nothing.

    Raises:
      InputError: a run's config cannot work, its folder holds another config's, two runs would
        compute the same, or the sweep's folder holds another sweep.
    """
    if (workdir / "config.json").exists():
        raise InputError(
            f"workdir={str(workdir)!r}: holds a run; give the sweep a folder of its own"
        )
    for run in planned:
        found = runs.read_run(workdir / run.name).config
        changed = recipe.differences(found, runs.as_json(run.config.to_dict()))
        if found and changed:
            raise InputError(
                f"workdir={str(workdir)!r}: {run.name} is a run of another config "
                f"({'; '.join(changed)}); choose another folder, or set these fields back"
            )
    configs = [run.config for run in planned]
    for config in {(c.dataset, c.streaming, c.batch_size): c for c in configs}.values():
        check_dataset(config)
    names: dict[str, str] = {}
    for run in planned:
        # However they name the network, and whatever they set that it does not use.
        used = run.config.used.items()
        computed = {
            path: value
            for path, value in used
            if path == "model.dtype" or not path.startswith("model.")
        }
        first = names.setdefault(repr((run.config.architecture.canonical, computed)), run.name)
        if first != run.name:
            raise InputError(f"{first} and {run.name} are the same run: what differs has no effect")
    manifest(sweep, planned, workdir, command_line)


def run_name(overrides: Overrides) -> str:
    """A folder's name: the model, then what else is overridden, then the seed.

    >>> run_name({"seed": 1, "model.name": "resnet-110", "model.order": "bn_after_add"})
    'resnet-110-order-bn_after_add-seed1'
    >>> run_name({"model.name": "resnet-110", "model.gate_bias": -6.0})
    'resnet-110-gate_bias-6'
    """
    parts = [re.sub(r"[^\w.-]", "_", overrides["model.name"])]
    for path in sorted(filter("model.name".__ne__, overrides), key="seed".__eq__):
        field, value = path.removesuffix(".name").rpartition(".")[-1], overrides[path]
        if isinstance(value, int | float) and not isinstance(value, bool):
            parts.append(f"{field}{value:g}" if isinstance(value, float) else f"{field}{value}")
        else:
            text = re.sub(r"[^A-Za-z0-9_.+-]+", "_", str(value))
            parts.append(f"{field}-{text.strip('_')}")
    return "-".join(parts)


def _named(sweep: Sweep) -> dict[str, Overrides]:
    named: dict[str, Overrides] = {}
    for overrides in sweep.overrides:
        if not overrides.get("model.name"):
            raise InputError(f"{sweep.name}: get_sweep() yields {overrides} without model.name")
        name = run_name(overrides)
        if name in named:
            raise InputError(f"{sweep.name}: two runs are called {name}: {overrides}")
        named[name] = overrides
    if not named:
        raise InputError(f"{sweep.name}: get_sweep() yields no runs")
    return named


def _chosen(pattern: str | None, named: dict[str, Overrides]) -> dict[str, Overrides]:
    try:
        chosen = {name: named[name] for name in named if re.search(pattern or "", name)}
    except re.error as error:
        raise InputError(f"filter={pattern!r}: not a regular expression ({error})") from error
    if not chosen:
        more = f" and {len(named) - 8} more" * (len(named) > 8)
        shown = ", ".join([*named][:8])
        raise InputError(f"filter={pattern!r}: matches no run; they are {shown}{more}")
    return chosen


def _scaled(config: ConfigDict, num_steps: int, stated: Set[str]) -> Overrides:
    scaled: Overrides = {"num_steps": num_steps}
    for path in [path for path in LONGEST_PERIODS if path not in stated]:
        longest = math.ceil(num_steps / LONGEST_PERIODS[path])
        if functools.reduce(lambda part, key: part[key], path.split("."), config) > longest:
            scaled[path] = longest
    return scaled


def _argument(overrides: Overrides) -> str:
    """The config's argument, "network,field=value,…"; commas in a value stand in quotes."""
    texts = {path: repr(v) if "," in str(v) else str(v) for path, v in overrides.items()}
    fields = [f"{path}={text}" for path, text in texts.items() if path != "model.name"]
    return ",".join([overrides["model.name"], *fields])


def manifest(
    sweep: Sweep, planned: Sequence[PlannedRun], workdir: Path, command_line: Overrides
) -> dict[str, Any]:
    """What `sweep.json` is to hold: these runs and those that it has already.

    Args:
      sweep: what is run.
      planned: the runs of this start.
      workdir: the sweep's folder.
      command_line: what the command line changed in all runs; "num_steps" among it.

    Raises:
      InputError: the folder holds another sweep; the message names what differs.
    """
    own = {run.name: runs.as_json(run.overrides) for run in planned}
    earlier = _read_manifest(workdir / MANIFEST)
    before = {run["name"]: run["overrides"] for run in earlier.get("runs", ())}
    now = {
        "format": FORMAT,
        "name": sweep.name,
        "title": sweep.title,
        "paper": sweep.paper,
        "recipe": kept_recipe(sweep, command_line),
        "config": sweep.config,
        "common": runs.as_json(command_line),
        "command": shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]]),
        "runs": [{"name": name, "overrides": of_run} for name, of_run in {**before, **own}.items()],
    }
    if earlier:
        identity = lambda told: {
            **{field: told.get(field) for field in ("name", "config")},
            **told.get("common", {}),
        }
        changed = recipe.differences(identity(earlier), identity(now))
        for name in before.keys() & own.keys():
            changed += [f"{name}'s {line}" for line in recipe.differences(before[name], own[name])]
        if changed:
            raise InputError(
                f"workdir={str(workdir)!r} holds another sweep ({'; '.join(changed[:4])}); "
                "choose another folder, or the same sweep"
            )
    return now


def kept_recipe(sweep: Sweep, command_line: Overrides) -> str:
    """The sweep's recipe, after what the command line did to it."""
    changed = {path for path in command_line if path not in runs.RUNTIME_FIELDS}
    if not changed:
        return sweep.recipe
    return "shortened" if changed == {"num_steps"} and sweep.recipe == "paper" else "other"


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all({"name", "overrides"} <= run.keys() for run in found["runs"]):
            raise ValueError("a run has no name or no overrides")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from error
    return found
