"""Keeps finished runs in a few KB each: folders of the same layout, small enough to commit."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting.load import FINISHED, interpret
from resnet_jax.runs import Row, Run

MOST_ROWS = 40  # of each split
DIGITS = 5

KEPT = ("loss", "error", "gradient_norm", "learning_rate", "seconds")
"""Fields of a curve's rows, beside "step" and "split"."""


def archive(workdir: Path, destination: Path) -> list[str]:
    """Copies what a report needs of the finished runs in `workdir`, and the findings of analyses.

    Curves are thinned, checkpoints stay behind, and the places of the machine (work and data
    folders) are left out. Runs that `destination` has already are replaced with their analyses,
    others stay.

    Returns:
      Names of the runs that were copied.

    Raises:
      InputError: there is no finished run in `workdir`, or `destination` cannot be written or would
        replace one of these, or another run of the same name; two of them have one name.
    """
    finished = [run for run in runs.find_runs(workdir) if run.status in FINISHED]
    if not finished:
        raise InputError(f"workdir={str(workdir)!r}: no finished run to archive in this folder")
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
    try:
        for run in finished:
            _copy_run(run, destination / run.name, destination.name)
        _copy_sweep(workdir, destination, {run.name for run in finished})
        for path in {workdir, *(run.path for run in finished)}:
            _copy_analyses(workdir, path.relative_to(workdir), destination)
    except OSError as error:
        raise InputError(
            f"archive={str(destination)!r}: cannot be written ({error.strerror})"
        ) from error
    return [run.name for run in finished]


def _refuse_another(run: Run, kept: Path) -> None:
    """Raises an error if `kept` has a run of another config, seed or start."""
    old, new = interpret(runs.read_run(kept), kept.name), interpret(run, kept.name)
    stated = lambda result: {k: v for k, v in result.settings.items() if v is not None}
    ids = {result.run.info.get("run_id") for result in (old, new)} - {None}
    same = (stated(old), old.seed) == (stated(new), new.seed) and len(ids) < 2
    if old.has_config and not same:
        raise InputError(
            f"archive={str(kept.parent)!r}: {kept.name} there is another run; remove it or give "
            "another folder"
        )


def _copy_run(run: Run, folder: Path, name: str) -> None:
    info = {"format": runs.FORMAT, "config": _without_places(run.config), **run.info}
    if info.get("command"):
        info["command"] = _placeless(info["command"], f"runs/{name}/{folder.name}")
    lines = [json.dumps(row) + "\n" for row in thinned(run.rows)]
    if (folder / "analysis").exists():  # Of an earlier copy: they are of what stood there then.
        shutil.rmtree(folder / "analysis")
    runs.write_json(folder / "config.json", info)
    runs.write_text(folder / "metrics.jsonl", "".join(lines))
    runs.write_json(folder / "summary.json", run.summary)


def _copy_sweep(workdir: Path, destination: Path, finished: set[str]) -> None:
    path = workdir / "sweep.json"
    if not path.exists():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    record["common"] = _without_places_flat(record.get("common") or {})
    record["command"] = _placeless(record.get("command") or "", f"runs/{destination.name}")
    archived = destination / "sweep.json"  # Its other runs stay.
    before = json.loads(archived.read_text(encoding="utf-8"))["runs"] if archived.exists() else []
    record["runs"] = [run for run in before if run["name"] not in finished] + [
        {"name": run["name"], "overrides": _without_places_flat(run["overrides"])}
        for run in record["runs"]
        if run["name"] in finished
    ]
    runs.write_json(archived, record)


def _copy_analyses(workdir: Path, run: Path, destination: Path) -> None:
    for finding in sorted((workdir / run).glob("analysis/*/finding.md")):
        folder = destination / run / "analysis" / finding.parent.name
        *said, last = finding.read_text(encoding="utf-8").split("\n\n")  # How it was measured.
        rename = partial(_placeless_study, workdir=workdir, name=destination.name)
        last = re.sub(r"^`([^`]*)`", rename, last)
        runs.write_text(folder / "finding.md", "\n\n".join([*said, last]))
        if (finding.parent / "figure.svg").is_file():
            shutil.copyfile(finding.parent / "figure.svg", folder / "figure.svg")


def thinned(rows: Sequence[Row]) -> list[Row]:
    """At most `MOST_ROWS` rows of each split, evenly spaced, the last among them."""
    kept = []
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        stride = -(-len(of_split) // MOST_ROWS)
        kept += of_split[::-1][::stride]
    return [_rounded(row) for row in sorted(kept, key=lambda row: row["step"])]


def _rounded(row: Row) -> Row:
    figures = {name: row[name] for name in KEPT if name in row}
    return {
        "step": row["step"],
        "split": row["split"],
        **{name: v if v is None else float(f"{v:.{DIGITS}g}") for name, v in figures.items()},
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "dataset": {**config.get("dataset", {}), "data_dir": None}}


def _without_places_flat(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key != "dataset.data_dir"}


def _placeless(command: str, workdir: str) -> str:
    """The command as one would give it in the project's own folder."""
    return shlex.join(_placeless_arguments(shlex.split(command), workdir))


def _placeless_study(command: re.Match, workdir: Path, name: str) -> str:
    """The command of a study, whose folders are those of the sweep's runs."""
    kept, place = [], workdir.absolute()
    for argument in shlex.split(command[1]):
        flag, equals, value = argument.partition("=")
        if flag == "--data_dir":
            continue
        if flag in ("--workdir", "--output") and Path(value).absolute().is_relative_to(place):
            value = str(Path("runs", name, Path(value).absolute().relative_to(place)))
        kept.append(f"{flag}{equals}{value}")
    return f"`{shlex.join(kept)}`"


def _placeless_arguments(arguments: Sequence[str], workdir: str) -> Iterator[str]:
    for argument in arguments:
        if argument.startswith("--workdir="):
            yield f"--workdir={workdir}"
        elif not re.match(r"--(override=|config\.)dataset\.data_dir=", argument):
            yield re.sub(r",dataset\.data_dir=[^,]*", "", argument)
