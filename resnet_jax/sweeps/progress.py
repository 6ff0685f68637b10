"""How far a run is, read from the end of its folder's `metrics.jsonl`."""

import dataclasses
import enum
import json
from collections.abc import Iterator
from pathlib import Path

from resnet_jax.runs import Row

_TAIL = 16_384  # bytes: several dozen rows


class State(enum.StrEnum):
    """What a sweep's run is doing, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    RESUMED = "resumed"  # running, from a checkpoint of an earlier process
    STOPPED = "stopped"
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Progress:
    """A run's last figures; errors are fractions, None is not known."""

    step: int = 0
    loss: float | None = None
    train_error: float | None = None
    test_error: float | None = None
    images_per_second: float | None = None


def read(folder: Path) -> Progress:
    """The figures of the last training row and of the last test row."""
    train: Row = {}
    test: Row = {}
    for row in _last_rows(folder / "metrics.jsonl"):
        if row.get("split") == "train":
            train = train or row
        elif row.get("split") == "test":
            test = test or row
        if train and test:
            break
    return Progress(
        step=train.get("step", 0),
        loss=train.get("loss"),
        train_error=train.get("error"),
        test_error=test.get("error"),
        images_per_second=train.get("images_per_second"),
    )


def last_checkpoint(folder: Path) -> int:
    """The step from which the folder's run would go on."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _last_rows(path: Path) -> Iterator[Row]:
    """Rows from the last one backwards; a row that is still being written is left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for line in reversed(lines):
        try:
            yield json.loads(line)
        except ValueError:  # Cut at either end.
            continue
