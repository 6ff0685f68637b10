"""`sweep.json`: what a sweep's folder is about, for the report and for the next start.

    {"format": 1, "name": …, "title": …, "paper": … or null, "recipe": …, "config": …,
     "common": {…}, "command": …, "runs": [{"name": …, "overrides": {…}}, …]}

`common` holds what the command line changed in all runs, `runs` all runs that any start of the
sweep has planned.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.runs import recipe
from resnet_jax.sweeps.grid import Overrides, Sweep
from resnet_jax.sweeps.plan import PlannedRun

FORMAT = 1
FILE = "sweep.json"


def write(
    workdir: Path, sweep: Sweep, planned: Sequence[PlannedRun], command_line: Overrides
) -> None:
    """Writes `sweep.json`, and keeps the runs that it has already; arguments as of `check`."""
    runs.write_json(workdir / FILE, check(workdir, sweep, planned, command_line))


def check(
    workdir: Path, sweep: Sweep, planned: Sequence[PlannedRun], command_line: Overrides
) -> dict[str, Any]:
    """What `sweep.json` is to hold, if this sweep may be run in the folder.

    Args:
      workdir: the sweep's folder.
      sweep: what is run.
      planned: the runs of this start.
      command_line: what the command line changed in all runs; "num_steps" among it.

    Raises:
      InputError: the folder holds another sweep; the message names what differs.
    """
    record = {
        "format": FORMAT,
        "name": sweep.name,
        "title": sweep.title,
        "paper": sweep.paper,
        "recipe": kept_recipe(sweep, command_line),
        "config": sweep.config,
        "common": command_line,
        "command": shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]]),
    }
    listed = {run.name: runs.as_json(run.overrides) for run in planned}
    earlier = _read(workdir / FILE)
    if earlier:
        before = {run["name"]: run["overrides"] for run in earlier["runs"]}
        _check_same(workdir, earlier, record, before, listed)
        listed = {**before, **listed}
    record["runs"] = [{"name": name, "overrides": own} for name, own in listed.items()]
    return record


def kept_recipe(sweep: Sweep, command_line: Overrides) -> str:
    """The sweep's recipe, after what the command line did to it."""
    changed = {path for path in command_line if path not in runs.RUNTIME_FIELDS}
    if not changed:
        return sweep.recipe
    return "shortened" if changed == {"num_steps"} and sweep.recipe == "paper" else "other"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not all({"name", "overrides"} <= run.keys() for run in record["runs"]):
            raise ValueError("a run has no name or no overrides")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from error
    return record


def _check_same(
    workdir: Path,
    earlier: dict[str, Any],
    now: dict[str, Any],
    runs_before: dict[str, Overrides],
    runs_now: dict[str, Overrides],
) -> None:
    changed = recipe.differences(
        {field: earlier.get(field) for field in ("name", "config")},
        {field: now[field] for field in ("name", "config")},
    )
    changed += recipe.differences(earlier.get("common", {}), runs.as_json(now["common"]))
    for name in runs_before.keys() & runs_now.keys():
        differences = recipe.differences(runs_before[name], runs_now[name])
        changed += [f"{name}'s {line}" for line in differences]
    if changed:
        raise InputError(
            f"workdir={str(workdir)!r} holds another sweep ({'; '.join(changed[:4])}); "
            "choose another folder, or the same sweep"
        )
