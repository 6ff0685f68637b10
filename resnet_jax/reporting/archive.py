"""Keeps finished runs in a few KB each: folders of the same layout, small enough to commit."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting.load import FINISHED, interpret
from resnet_jax.runs import Row, Run, arguments
from resnet_jax.runs.recipe import differences

MOST_ROWS = 40  # of each split
DIGITS = 5

KEPT = ("loss", "error", "gradient_norm", "learning_rate", "seconds")
"""Fields of a curve's rows, beside "step" and "split"."""


def archive(workdir: Path, destination: Path) -> list[str]:
    """Copies what a report needs of the finished runs in `workdir`, and analyses with their data.

    Curves are thinned, checkpoints stay behind, and the places of the machine (work and data
    folders) are left out. Runs that `destination` has already are replaced with their analyses,
    others stay. Nothing is changed where an error is raised, but where writing fails.

    Returns:
      Names of the runs that were copied.

    Raises:
      InputError: there is no finished run in `workdir`, or two of one name; a `sweep.json` or
        the config of a finished run is damaged; `destination` cannot be written, holds another
        sweep or another folder's findings, or would replace one of these runs, or another one of
        the same name.
    """
    finished = [run for run in runs.find_runs(workdir) if run.status in FINISHED]
    if not finished:
        raise InputError(f"workdir={str(workdir)!r}: no finished run to archive in this folder")
    damaged = [run.name for run in finished if not run.config]
    if damaged:
        raise InputError(
            f"workdir={str(workdir)!r}: config.json of {', '.join(damaged)} is missing or damaged; "
            "restore it, or move the run out of this folder"
        )
    named: dict[str, Run] = {}
    for run in finished:
        if named.setdefault(run.name, run) is not run:
            raise InputError(
                f"workdir={str(workdir)!r}: two finished runs are called {run.name} "
                f"({named[run.name].path} and {run.path}); rename one of them"
            )
        if run.path.resolve() in (destination.resolve(), (destination / run.name).resolve()):
            raise InputError(
                f"archive={str(destination)!r}: would replace {run.path}, which has more; give "
                "another folder"
            )
        _refuse_another(run, destination / run.name)
    names = [*named]
    places = {workdir: destination} | {run.path: destination / run.name for run in finished}
    home = Path("runs", destination.name, places[workdir].relative_to(destination))
    files: dict[Path, Any] = {}  # All that may fail for what is read comes before anything changes.
    for run in finished:
        files |= _of_run(run, places[run.path], destination.name)
    files |= _of_sweep(workdir, destination, names)
    for path, place in places.items():
        files |= _of_analyses(path, place, partial(_moved, workdir, home))
    _refuse_other_analyses(files, destination, names)
    try:
        for run in finished:
            if (places[run.path] / "analysis").exists():  # Of an earlier copy, of what it held.
                shutil.rmtree(places[run.path] / "analysis")
        for path, content in files.items():
            write = runs.write_json if isinstance(content, dict) else runs.write_text
            write(path, content)
    except OSError as error:
        raise InputError(
            f"archive={str(destination)!r}: cannot be written ({error.strerror})"
        ) from error
    return names


def _refuse_another(run: Run, kept: Path) -> None:
    """Raises an error if `kept` has a run of another config, seed or start."""
    old, new = interpret(runs.read_run(kept), kept.name), interpret(run, kept.name)
    ids = {result.run.info.get("run_id") for result in (old, new)} - {None}
    same = (old.stated, old.seed) == (new.stated, new.seed) and len(ids) < 2
    if old.has_config and not same:
        raise InputError(
            f"archive={str(kept.parent)!r}: {kept.name} there is another run; remove it or give "
            "another folder"
        )


def _refuse_other_analyses(
    files: Mapping[Path, Any], destination: Path, names: Collection[str]
) -> None:
    """Raises an error if a finding on all of `destination` is on runs that are not among these."""
    if {path.parent.name for path in destination.glob("*/config.json")} <= {*names}:
        return
    for path in destination.glob("analysis/*/finding.md"):
        if path in files and path.read_bytes() != files[path].encode():
            raise InputError(
                f"archive={str(destination)!r}: analysis/{path.parent.name} there may be of "
                "another folder, as other runs there are; remove it or give another folder"
            )


def _of_run(run: Run, folder: Path, name: str) -> dict[Path, Any]:
    """The files of a run's archive, `folder`."""
    info = {"format": runs.FORMAT, "config": _without_places(run.config), **run.info}
    if info.get("command"):
        info["command"] = _placeless(info["command"], lambda _: f"runs/{name}/{folder.name}")
    lines = [json.dumps(row) + "\n" for row in thinned(run.rows)]
    return {
        folder / "config.json": info,
        folder / "metrics.jsonl": "".join(lines),
        folder / "summary.json": run.summary,
    }


def _of_sweep(workdir: Path, destination: Path, finished: Collection[str]) -> dict[Path, Any]:
    """The file that says of which sweep the runs are, if `workdir` has one."""
    archived = destination / "sweep.json"
    before, now = _read_sweep(archived), _read_sweep(workdir / "sweep.json")
    if not now:
        return {}
    identity = lambda told: {
        **{field: told.get(field) for field in ("name", "config", "recipe")},
        **told["common"],
    }
    changed = differences(identity(before), identity(now)) if before else []
    if changed:
        raise InputError(
            f"archive={str(destination)!r}: holds another sweep ({'; '.join(changed[:4])}); give "
            "another folder"
        )
    kept = [run for run in before.get("runs", ()) if run["name"] not in finished]  # They stay.
    kept += [run for run in now["runs"] if run["name"] in finished]
    command = _placeless(now.get("command") or "", lambda _: f"runs/{destination.name}")
    return {archived: {**now, "command": command, "runs": kept}}


def _read_sweep(path: Path) -> dict[str, Any]:
    """A sweep's file without the places of the machine; empty if there is none."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["common"] = _without_places_flat(record.get("common") or {})
        record["runs"] = [
            {"name": run["name"], "overrides": _without_places_flat(run["overrides"])}
            for run in record["runs"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: cannot be read ({problem}); restore or remove it") from error
    return record


def _of_analyses(path: Path, place: Path, moved: Callable[[str], str]) -> dict[Path, Any]:
    """What studies wrote into the folder `path`, for its archive `place`."""
    files: dict[Path, Any] = {}
    for finding in sorted(path.glob("analysis/*/finding.md")):
        folder = place / "analysis" / finding.parent.name
        *said, last = finding.read_text(encoding="utf-8").split("\n\n")  # How it was measured.
        last = re.sub(r"^`([^`]*)`", lambda command: f"`{_placeless(command[1], moved)}`", last)
        files[folder / "finding.md"] = "\n\n".join([*said, last])
        for name in ("data.csv", "figure.svg"):
            if (finding.parent / name).is_file():
                files[folder / name] = (finding.parent / name).read_bytes()
    return files


def _moved(workdir: Path, home: Path, folder: str) -> str:
    """A folder in `workdir` as one in `home`; any other is itself."""
    place = Path(folder).absolute()
    if not place.is_relative_to(workdir.absolute()):
        return folder
    return str(home / place.relative_to(workdir.absolute()))


def thinned(rows: Sequence[Row]) -> list[Row]:
    """At most `MOST_ROWS` rows of each split, evenly spaced, the last among them."""
    kept = []
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        stride = -(-len(of_split) // MOST_ROWS)
        kept += of_split[::-1][::stride]
    return [_rounded(row) for row in sorted(kept, key=lambda row: row["step"])]


def _rounded(row: Row) -> Row:
    metrics = {name: row[name] for name in KEPT if name in row}
    return {
        "step": row["step"],
        "split": row["split"],
        **{name: v if v is None else float(f"{v:.{DIGITS}g}") for name, v in metrics.items()},
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    dataset = config.get("dataset")
    if not isinstance(dataset, Mapping):  # Damaged, and to be seen so in the archive, too.
        return config
    return {**config, "dataset": {**dataset, "data_dir": None}}


def _without_places_flat(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key != "dataset.data_dir"}


def _placeless(command: str, moved: Callable[[str], str]) -> str:
    """The command as one would give it in the project's own folder, where `moved` puts folders."""
    kept, words = [], shlex.split(command)
    while words:
        taken = [words.pop(0)]
        flag, equals, value = taken[0].partition("=")
        if flag.startswith("-") and not equals and words and not words[0].startswith("-"):
            value = words.pop(0)  # Of a flag, or what follows one that takes none.
            taken.append(value)
        name = flag.lstrip("-") if flag.startswith("-") else ""
        if name in ("workdir", "output"):
            taken = [f"--{name}={moved(value)}"]
        elif name in ("data_dir", "config.dataset.data_dir"):
            taken = []
        elif name == "config":
            file, _, argument = value.partition(":")
            argument = _without_data_dir(argument)
            taken = [f"--config={file}:{argument}" if argument else f"--config={file}"]
        elif name == "override":
            fields = _without_data_dir(value)
            taken = [f"--override={fields}"] if fields else []
        kept += taken
    return shlex.join(kept)


def _without_data_dir(argument: str) -> str:
    """Text such as "plain-20,dataset.data_dir=/data,seed=1" without the data's folder."""
    if "dataset.data_dir" not in argument:  # What a config of one's own takes may be any text.
        return argument
    name, texts = arguments.take_apart(argument)
    fields = [f"{key}={text}" for key, text in texts if key != "dataset.data_dir"]
    return ",".join([name] * bool(name) + fields)
