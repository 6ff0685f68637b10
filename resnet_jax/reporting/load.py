"""Finds all runs of the given work folders: those that are there and those that a sweep awaits."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax.errors import InputError
from resnet_jax.reporting import naming
from resnet_jax.reporting.results import Group, Result, group, interpret
from resnet_jax.runs import find_runs, read_run


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


@dataclasses.dataclass(frozen=True)
class Collection:
    """All that a report is about."""

    sweeps: list[Sweep]
    results: list[Result]
    groups: list[Group]
    problems: list[str]
    """Damaged files, one line each, with the name of the run."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What else a reader must know of the runs: copies that do not count."""


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
        prefix = f"{workdir.name}/" if len(workdirs) > 1 else ""
        found = _read_results(workdir, sweep, prefix)
        if not found:
            raise InputError(f"workdir={str(workdir)!r}: no runs found in this folder")
        sweeps.append(sweep)
        results += found
        problems += [f"{prefix}{line}" for line in complaint]
    results.sort(key=lambda result: naming.natural(result.name))
    results, notes = _without_copies(results)
    problems += [f"{result.name}: {line}" for result in results for line in result.run.problems]
    return Collection(sweeps, results, group(results), problems, notes)


def _without_copies(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Every run once, though its folder is given twice or was copied; and which are left out.

    Copies have one id (written at a run's first start), or one identity (see `Result`). Of
    several, the one that came furthest stays.
    """
    kept: list[Result] = []
    copies: list[str] = []
    place: dict[tuple, int] = {}
    for result in results:
        run_id = result.run.info.get("run_id")
        keys = [result.identity, *([("id", naming.as_text(run_id))] if run_id else [])]
        index = next((place[key] for key in keys if key in place), None)
        if index is None:
            index = len(kept)
            kept.append(result)
        else:
            old = kept[index]
            further = (result.summary_is_there, result.steps) > (old.summary_is_there, old.steps)
            kept[index], copy = (result, old) if further else (old, result)
            copies.append(f"{copy.name} of {kept[index].name}")
        place |= dict.fromkeys(keys, index)
    if not copies:
        return kept, []
    listed = ", ".join(copies[:3]) + (f" and {len(copies) - 3} more" if len(copies) > 3 else "")
    noun = "run is a copy" if len(copies) == 1 else "runs are copies"
    return kept, [f"{len(copies)} {noun} of another and not counted: {listed}."]


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
    return Sweep(workdir, str(title), **optional, declared=declared), problems
