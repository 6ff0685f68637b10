"""The board as a table that stays in place on a terminal."""

import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resnet_jax.sweeps.progress import State
from resnet_jax.sweeps.status import AT_WORK, Board, Entry, clock, percent

_REFRESH_SECONDS = 0.5
_OTHER_LINES = 5  # heading, rules and the line below the table

_STYLES = {
    State.RUNNING: "cyan",
    State.RESUMED: "cyan",
    State.DONE: "green",
    State.DIVERGED: "magenta",
    State.FAILED: "bold red",
}


class LiveBoard(Board):
    """A row a run; if there are more than fit, those around the ones at work."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        # Drawn by the sweep's own loop: a thread would meet its forks.
        self._live = Live(auto_refresh=False)
        self._drawn = 0.0

    def note(self, line: str) -> None:
        """Nothing: the table shows it."""

    def say(self, line: str) -> None:
        self._live.console.print(line, highlight=False, markup=False)

    def refresh(self) -> None:
        if time.monotonic() - self._drawn >= _REFRESH_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        summary = self.summary()  # Also brings the entries up to date.
        table = Table("run", "state")
        for column in ("step", "loss", "training error", "test error", "images/s", "ETA"):
            table.add_column(column, justify="right")
        for entry in self._shown():
            table.add_row(*_cells(entry))
        self._live.update(Group(table, Text(summary)), refresh=True)

    def _shown(self) -> list[Entry]:
        entries = list(self.entries.values())
        room = max(1, self._live.console.size.height - _OTHER_LINES)
        at_work = [i for i, entry in enumerate(entries) if entry.state in AT_WORK]
        first = max(0, min((at_work or [0])[0] - room // 2, len(entries) - room))
        return entries[first : first + room]

    def __enter__(self) -> "LiveBoard":
        self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._draw()
        self._live.stop()


def _cells(entry: Entry) -> list[str | Text]:
    figures = entry.progress
    if entry.state is State.WAITING and not figures.step:
        return [entry.run.name, Text(entry.state)]
    return [
        entry.run.name,
        Text(entry.state, style=_STYLES.get(entry.state, "")),
        f"{figures.step}/{entry.num_steps}",
        "–" if figures.loss is None else f"{figures.loss:.4f}",
        percent(figures.train_error),
        percent(figures.test_error),
        f"{figures.images_per_second:,.0f}" if figures.images_per_second else "–",
        "–" if entry.seconds_left is None else clock(entry.seconds_left),
    ]
