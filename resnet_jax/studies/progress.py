"""How far a study is: a live bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 20

Track = Callable[[Iterable[Any]], Iterable[Any]]


class Tracker:
    """Makes the trackers of a study's loops.

    Attributes:
      folder: the study's, for what it trains.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._live = sys.stdout.isatty()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not self._live,
        )

    def __call__(self, title: str) -> Track:
        """A tracker of one loop: `for item in tracker("plain-20")(items)`."""
        return lambda items: self._loop(title, list(items))

    def _loop(self, title: str, items: list[Any]) -> Iterator[Any]:
        task = self._progress.add_task(title, total=len(items))
        told = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            self._progress.advance(task)
            if not self._live and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                print(f"{title}: {number} of {len(items)}", flush=True)

    def __enter__(self) -> "Tracker":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()
