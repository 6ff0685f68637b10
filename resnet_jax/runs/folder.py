"""What a run leaves behind: the one reader and writer of a run's folder (the workdir).

    config.json     the whole resolved config, versions, devices and command; written first
    metrics.jsonl   one JSON object a row: step, split, loss, error, …
    summary.json    the final metrics; written atomically and last: it means "complete"
    error.txt       the traceback of a bug, if one ended the run
    log.txt         what its processes printed, if a sweep started them
    checkpoints/    the training state (resnet_jax.training.checkpoints)
    tensorboard/    the same metrics as metrics.jsonl (resnet_jax.runs.loggers); wandb/, too

Errors are fractions in [0, 1], times are seconds, and numbers that are not finite are `null`.
Imports neither JAX nor Flax, so that results can be read anywhere.
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import math
import os
import platform
import secrets
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnet_jax import __version__
from resnet_jax.errors import InputError

FORMAT = 1

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder as read from disk.

    `status` is "completed" or "diverged" (there is a summary), "failed" (a bug's traceback),
    "partial" (started, no summary yet) or "missing" (nothing there). `problems` has one line for
    each damaged file.
    """

    path: Path
    config: dict[str, Any]
    info: dict[str, Any]
    rows: list[Row]
    summary: dict[str, Any] | None
    problems: list[str]
    status: str

    @property
    def name(self) -> str:
        """Of its folder; of a link, the link's own."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name


def read_run(path: str | os.PathLike) -> Run:
    """Reads a run's folder. Never raises for a damaged one: it says so in `problems`."""
    path = Path(path)
    problems: list[str] = []
    info = _read_json(path / "config.json", problems) or {}
    begun = bool(problems) or _exists(path / "config.json")
    if begun and not problems and not info.get("config"):
        problems.append("config.json: holds no config")
    summary = _read_json(path / "summary.json", problems)
    if summary is not None and not _says_what_came(summary):
        problems.append("summary.json: holds no result")
        summary = None
    rows = _read_rows(path / "metrics.jsonl", problems)
    if summary is not None:
        status = summary["status"]
    elif _exists(path / "error.txt"):
        status = "failed"
    else:
        status = "partial" if begun else "missing"
    # A bug may have ended it before it wrote one.
    if not begun and (rows or summary is not None or checkpoint_steps(path)) and not problems:
        problems.append("config.json: missing")
    if summary is not None and not rows and not _exists(path / "metrics.jsonl"):
        problems.append("metrics.jsonl: missing")
    return Run(path, info.pop("config", {}), info, rows, summary, problems, status)


def _says_what_came(summary: dict[str, Any]) -> bool:
    """Whether it has a status and, of a completed run, an error."""
    errors = (summary.get(f"{split}_error") for split in ("train", "validation", "test"))
    status = summary.get("status")
    return status == "diverged" or (status == "completed" and any(e is not None for e in errors))


def find_runs(workdir: str | os.PathLike) -> list[Run]:
    """The run in `workdir`, if it is one, and all runs in its sub-folders, by name.

    Raises `InputError` if there is no such folder.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise InputError(f"workdir={str(workdir)!r}: no such folder")
    return [read_run(path) for path in (workdir, *sorted(workdir.iterdir())) if _is_run(path)]


def checkpoint_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints in a run's folder, sorted."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdecimal())


def _is_run(path: Path) -> bool:
    return any(_exists(path / name) for name in ("config.json", "metrics.jsonl", "summary.json"))


def _exists(path: Path) -> bool:
    """As far as one can see: `Path.exists` raises where it may not look."""
    return os.path.exists(path)  # noqa: PTH110


def last_epoch_start(num_steps: int, steps_per_epoch: int) -> float:
    """The step after which the last epoch begins; in a run of less than ten, its last tenth."""
    return num_steps - min(steps_per_epoch, num_steps / 10)


def final_training_metrics(rows: list[Row], steps_per_epoch: int) -> dict[str, float | None]:
    """Loss and error as the optimiser saw them over the last epoch, and images a second.

    They are means, by steps, over the training rows (augmented images, the batch's own statistics)
    that end after `last_epoch_start`, as the papers' training curves are. `images_per_second` is
    the median over all rows.
    """
    rows = [row for row in rows if row["split"] == "train"]
    start = last_epoch_start(rows[-1]["step"] if rows else 0, steps_per_epoch)
    steps = [row["step"] for row in rows]
    lengths = [end - begin for begin, end in itertools.pairwise([0, *steps])]
    last = [(row, n) for row, n in zip(rows, lengths, strict=True) if row["step"] > start]
    mean = lambda name: _mean([row[name] for row, _ in last], [n for _, n in last])
    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return {
        "train_loss": mean("loss"),
        "train_error": mean("error"),
        "images_per_second": statistics.median(rates) if rates else None,
    }


def _mean(values: list[float | None], weights: list[int]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return statistics.fmean(known, weights)


def write_config(
    workdir: Path,
    config: dict[str, Any],
    *,
    devices: str,
    class_names: Sequence[str] = (),
    data: dict[str, Any] | None = None,
    init_from_id: str | None = None,
    resumed: bool = False,
) -> None:
    """Writes `config.json`: the config, what it runs on, and of the data what is known.

    That is the names of the classes, and `data`, a `datasets.fingerprint`. `init_from_id` is the
    `run_id` of the run whose weights it begins with, however the config spells that one's folder.

    The run's identity, `run_id`, is drawn at its first start and stays: a copy of the folder has
    the same one, another run of the same config has not. Of a `resumed` run, `earlier` has the
    versions, devices and commits that trained the parts before, where they were others.
    """
    earlier = _read_json(workdir / "config.json", []) or {}
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version(), "resnet_jax": __version__}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    now = {"versions": versions, "devices": devices, "commit": _commit()}
    before = {key: earlier.get(key) for key in now}
    changed = resumed and any(before.values()) and before != now
    parts = [*earlier.get("earlier", ()), *([before] if changed else [])]
    record = {
        "format": FORMAT,
        "run_id": earlier.get("run_id") or secrets.token_hex(8),
        "config": config,
        **now,
        **({"earlier": parts} if parts else {}),
        "class_names": list(class_names),
        **({"data": data} if data else {}),
        **({"init_from_id": init_from_id} if init_from_id else {}),
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "command": shlex.join(["python", "-m", *_module_and_arguments()]),
    }
    write_json(workdir / "config.json", record)


def processor_name() -> str:
    """The machine's processor, e.g. "Apple M3"."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else sys.argv[0], *sys.argv[1:]]


def _commit() -> str | None:
    """The checkout's commit, "+" appended if files differ from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # A copy of the package in somebody else's repository is no checkout of this one.
        ours = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True
        )
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True)
    except FileNotFoundError:  # no git on this machine
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "") if ours.returncode == 0 else None


def as_json(value: Any) -> Any:
    """A value as JSON holds it: tuples are lists, keys are strings."""
    return json.loads(json.dumps(_finite(value), default=str))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` so that a reader sees the old file or the whole new one, never a part."""
    text = json.dumps(_finite(value), indent=2, default=str) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str | bytes) -> None:
    """Replaces a file, a figure's bytes too, in one instant, whatever interrupts."""
    content = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with _named(path), os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name into an error of writing to it (a full disk), which lacks one."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def read_log(path: Path, step: float = math.inf) -> list[Row]:
    """The rows of a `metrics.jsonl` up to a step; none if there is no such file.

    Raises:
      OSError: it cannot be read.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in _parse_rows(lines, path.name, []) if row["step"] <= step]


class MetricsLog(contextlib.AbstractContextManager):
    """Appends rows to `metrics.jsonl`.

    Opened at a step, it first drops the rows after that step: they belong to work that was done
    after the checkpoint from which the run now continues, and will be done again.
    """

    def __init__(self, workdir: Path, step: int = 0):
        path = workdir / "metrics.jsonl"
        # Not by `read_run`: what cannot be read at the moment must not be written over.
        self.rows = read_log(path, step)
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: Row) -> None:
        """Adds one row; it is on disk when this returns."""
        row = _finite(row)
        self.rows.append(row)
        with _named(Path(self._file.name)):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __exit__(self, *_: Any) -> None:
        self._file.close()


def _read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: cannot be read ({error})")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path.name}: not a JSON object")
        return None
    version = value.get("format", FORMAT)
    if not isinstance(value.get("config", {}), dict):
        problems.append(f"{path.name}: its config is no JSON object")
        return None
    if not isinstance(version, int):
        problems.append(f"{path.name}: format {version!r} is no number")
        return None
    if version > FORMAT:
        problems.append(f"{path.name}: format {version} is newer than this version reads")
        return None
    return value


def _read_rows(path: Path, problems: list[str]) -> list[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({error.strerror})")
        return []
    return _parse_rows(lines, path.name, problems)


def _parse_rows(lines: list[bytes], name: str, problems: list[str]) -> list[Row]:
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(row, dict) and isinstance(step, int) and step < 2**53 and "split" in row:
            rows.append(row)
        else:
            problems.append(f"{name} line {number}: damaged or cut short")
    return rows


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
