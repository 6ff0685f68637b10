"""Copies of a run's rows for dashboards: TensorBoard and Weights & Biases.

`metrics.jsonl` stays the truth: a copy that cannot be written is left out and stops no run.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from resnet_jax.errors import InputError
from resnet_jax.runs.folder import Row, read_run


class TensorBoard:
    """Events in the run's folder `tensorboard/`, one file a start of the run.

    They are written at once, not by tensorboardX's thread: when that thread dies, of a full disk,
    whoever gives it more waits for ever.

    Args:
      workdir: the run's folder.
      step: TensorBoard forgets what earlier files say of steps after this one.
    """

    def __init__(self, workdir: Path, step: int):
        folder = workdir / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, row: Row) -> None:
        """Writes the row's metrics as `split/name`."""
        for name, value in _metrics(row):
            event = Event(step=row["step"], wall_time=time.time(), summary=scalar(name, value))
            self._write(event)
        with contextlib.suppress(OSError):
            self._writer.flush()

    def _write(self, event: Event) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_event(event)

    def close(self) -> None:
        """Closes the file; the resumed run begins another."""
        with contextlib.suppress(OSError):
            self._writer.close()


class WeightsAndBiases:
    """A record of Weights & Biases, whose id is the `run_id` in the run's config.json.

    A resumed run therefore continues its record, and so does one that was copied to another
    machine. The environment says where records go (WANDB_PROJECT, WANDB_MODE and so on).

    Args:
      workdir: the run's folder, which has its config.json.

    Raises:
      InputError: the record cannot be opened, for example for want of an API key.
    """

    def __init__(self, workdir: Path):
        import wandb  # Optional: the extra [wandb].

        self._errors = (wandb.errors.Error, OSError)
        run = read_run(workdir)
        try:
            self._record = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "resnet_jax"),
                id=run.info["run_id"],
                resume="allow",
                name=run.name,
                config=run.config,
                dir=workdir,
                settings=wandb.Settings(console="off", quiet=True),
            )
        except self._errors as error:
            raise InputError(f"loggers: wandb: {error}") from error

    def write(self, row: Row) -> None:
        """Logs the row's metrics as `split/name`."""
        with contextlib.suppress(*self._errors):
            self._record.log(dict(_metrics(row)), step=row["step"])

    def close(self) -> None:
        """Hands over what has not been sent; the resumed run opens the record again."""
        with contextlib.suppress(*self._errors):
            self._record.finish()


@contextlib.contextmanager
def open_loggers(
    names: Iterable[str], workdir: Path, step: int
) -> Iterator[list[TensorBoard | WeightsAndBiases]]:
    """The loggers of those names, closed in the end.

    Args:
      names: of `recipe.LOGGERS`.
      workdir: the run's folder.
      step: from which the run continues.
    """
    make: dict[str, Callable[[], TensorBoard | WeightsAndBiases]] = {
        "tensorboard": lambda: TensorBoard(workdir, step),
        "wandb": lambda: WeightsAndBiases(workdir),
    }
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(make[name]())) for name in names]


def _metrics(row: Row) -> Iterator[tuple[str, Any]]:
    """("train/loss", 2.3), …: what is known and finite."""
    for name, value in row.items():
        if name not in ("step", "split") and value is not None and math.isfinite(value):
            yield f"{row['split']}/{name}", value
