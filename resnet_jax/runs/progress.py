"""A run's progress: a live bar on a terminal, plain lines elsewhere."""

import datetime
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from resnet_jax.runs import Row


class Display:
    """Shows the rows of a run as they are logged.

    The remaining time is reckoned from the steps of this process after its first row, so that
    neither compilation nor an earlier part of the run bends it.

    Args:
      title: of the bar.
      num_steps: of the run.
      step: how many are done already.
      live: False for plain lines on a terminal, too. Open MPI gives every process a terminal, and
        writes what a bar does there into the job's log.
    """

    def __init__(self, title: str, num_steps: int, step: int = 0, *, live: bool = True):
        self._num_steps = num_steps
        self._start: tuple[int, float] | None = None
        self._live = live and sys.stdout.isatty()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(emoji=False),
            disable=not self._live,
        )
        self._task = self._progress.add_task(title, total=num_steps, completed=step, metrics="")

    def show(self, row: Row) -> None:
        """Takes a row of `metrics.jsonl`."""
        if row["split"] != "train":
            self.say(f"step {row['step']:>6}  {row['split']:<5} {_errors(row)}")
            return
        metrics = f"{_errors(row)}  lr {row['learning_rate']:.4g}{self._speed(row)}"
        if self._live:
            self._progress.update(self._task, completed=row["step"], metrics=metrics)
        else:
            self.say(f"step {row['step']:>6}  train {metrics}")

    def _speed(self, row: Row) -> str:
        rate = row.get("images_per_second")
        now = time.monotonic()
        if self._start is None:
            self._start = row["step"], now
        steps, seconds = row["step"] - self._start[0], now - self._start[1]
        text = f"  {rate:,.0f} images/s" if rate else ""
        if steps > 0:
            left = round(seconds / steps * (self._num_steps - row["step"]))
            text += f"  ETA {datetime.timedelta(seconds=left)}"
        return text

    def say(self, line: str) -> None:
        """Prints a line, on a terminal above the bar."""
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()


def _errors(row: Row) -> str:
    return f"loss {row['loss']:.4f}  error {100 * row['error']:6.2f}%"
