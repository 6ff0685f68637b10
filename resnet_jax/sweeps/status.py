"""How far a sweep's runs are: read from their folders, and shown while they are trained."""

import dataclasses
import datetime
import enum
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resnet_jax import runs
from resnet_jax.sweeps.plan import PlannedRun

_TAIL = 16_384  # bytes of metrics.jsonl: several dozen rows
_REFRESH_SECONDS = 0.5
_OTHER_LINES = 5  # of the table: heading, rules and the line below


class State(enum.StrEnum):
    """What a sweep's run is doing, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


ENDED = (State.DONE, State.DIVERGED, State.FAILED)
_FINISHED = {"completed": State.DONE, "diverged": State.DIVERGED}
_STYLES = {
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.DIVERGED: "magenta",
    State.FAILED: "bold red",
}


def finished_state(folder: Path) -> State | None:
    """How the run in a folder finished; None if it has not."""
    return _FINISHED.get(runs.read_run(folder).status)


def last_checkpoint(folder: Path) -> int:
    """The step from which the folder's run would resume."""
    return max(runs.checkpoint_steps(folder), default=0)


def last_rows(folder: Path) -> dict[str, runs.Row]:
    """The last row of each split near the end of a run's metrics, but for one being written."""
    last: dict[str, runs.Row] = {}
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return last
    for line in lines:
        try:
            row = json.loads(line)
            last[row["split"]] = row
        except (ValueError, TypeError, KeyError):  # Cut at either end.
            continue
    return last


@dataclasses.dataclass
class Entry:
    """A run in the table.

    Attributes:
      run, state: which, and what it is doing.
      first_step: where this start of the sweep found it.
      train, test: its last rows.
    """

    run: PlannedRun
    state: State
    first_step: int = 0
    train: runs.Row = dataclasses.field(default_factory=dict)
    test: runs.Row = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        return max(self.first_step, self.train.get("step", 0))

    def look(self, folder: Path) -> None:
        """Takes what the run has logged."""
        rows = last_rows(folder)
        # A resumed run's file first still has rows that will be made again.
        if self.state in ENDED or rows.get("train", {}).get("step", 0) >= self.first_step:
            self.train, self.test = rows.get("train", {}), rows.get("test", {})

    def cells(self) -> list[str | Text]:
        """This entry's row of the table."""
        cells: list[str | Text] = [
            self.run.name,
            Text(self.state, style=_STYLES.get(self.state, "")),
        ]
        if self.state is State.WAITING and not self.step:
            return cells
        loss, rate = self.train.get("loss"), self.train.get("images_per_second")
        config, running = self.run.config, self.state is State.RUNNING
        left = (config.num_steps - self.step) * config.batch_size
        return [
            *cells,
            f"{self.step}/{config.num_steps}",
            "–" if loss is None else f"{loss:.4f}",
            percent(self.train.get("error")),
            percent(self.test.get("error")),
            f"{rate:,.0f}" if rate else "–",
            clock(left / rate) if running and rate else "–",
        ]


class StatusTable:
    """Keeps an account of a sweep's runs.

    On a terminal it is a table that stays in place, with a row a run; if there are more than fit,
    those around the ones at work. Elsewhere it is a line whenever a run starts or ends.

    Args:
      workdir: the sweep's folder.
      planned: all runs, in order.
      finished: those that an earlier start of the sweep has finished.
      console: where it is shown; None for standard output.
    """

    def __init__(
        self,
        workdir: Path,
        planned: Sequence[PlannedRun],
        finished: Mapping[str, State],
        console: Console | None = None,
    ):
        self._workdir = workdir
        self._console = console or Console(force_terminal=sys.stdout.isatty(), emoji=False)
        # Drawn by the sweep's own loop: a thread would meet its forks.
        self._live = Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()
        self._drawn = 0.0
        self.entries = {
            run.name: Entry(run, finished.get(run.name, State.WAITING)) for run in planned
        }
        for name in finished:
            entry = self.entries[name]
            entry.look(workdir / name)
            entry.first_step = entry.step

    def started(self, run: PlannedRun) -> None:
        """The run has been given to a worker."""
        step = last_checkpoint(self._workdir / run.name)
        self.entries[run.name] = Entry(run, State.RUNNING, step)
        self._note(f"{run.name}: {f'resumes from step {step}' if step else 'started'}")

    def waits(self, run: PlannedRun, why: str) -> None:
        """The run waits to be started again."""
        self.entries[run.name].state = State.WAITING
        self.say(f"{run.name}: {why}")

    def ended(self, run: PlannedRun, state: State, message: str) -> None:
        """The run is at an end, or stopped."""
        entry, folder = self.entries[run.name], self._workdir / run.name
        entry.state = state
        entry.look(folder)
        line = f"{run.name}: {state}"
        if state is State.DONE:
            # Of the last epoch, as everywhere; the metrics here are those of the last few steps.
            final = runs.read_run(folder).summary or {}
            line += f", training error {percent(final.get('train_error'))}, "
            line += f"test error {percent(final.get('test_error'))}"
        elif state in (State.DIVERGED, State.STOPPED):
            line += f" at step {entry.step}"
        line += f", {message}" if message else ""
        (self.say if state is State.FAILED else self._note)(f"{line}  [{self.summary()}]")

    def say(self, line: str) -> None:
        """Prints a line that must be seen."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _note(self, line: str) -> None:
        """Prints what the table would show by itself."""
        if not self._console.is_terminal:
            self.say(line)

    def refresh(self) -> None:
        """Brings the table up to date; called several times a second."""
        if self._console.is_terminal and time.monotonic() - self._drawn >= _REFRESH_SECONDS:
            self._draw()

    def summary(self) -> str:
        """How far the whole is, in a few words."""
        states = [entry.state for entry in self.entries.values()]
        failed, left = states.count(State.FAILED), self.seconds_left()
        parts = [
            f"{sum(state in _FINISHED.values() for state in states)} of {len(states)} finished"
        ]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{clock(time.monotonic() - self._began)} so far")
        parts += [f"ETA {clock(left)}"] if left else []
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Of the whole: by the work done since this start, in steps times layers."""
        done = left = 0
        for name, entry in self.entries.items():
            if entry.state is State.RUNNING:
                entry.look(self._workdir / name)
            depth = entry.run.config.architecture.depth
            done += depth * (entry.step - entry.first_step)
            left += depth * (entry.run.config.num_steps - entry.step) * (entry.state not in ENDED)
        return (time.monotonic() - self._began) * left / done if done else None

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        summary = self.summary()  # Also brings the entries up to date.
        table = Table("run", "state")
        for column in ("step", "loss", "training error", "test error", "images/s", "ETA"):
            table.add_column(column, justify="right")
        for entry in self._fitting():
            table.add_row(*entry.cells())
        self._live.update(Group(table, Text(summary)), refresh=True)

    def _fitting(self) -> list[Entry]:
        entries = list(self.entries.values())
        room = max(1, self._console.size.height - _OTHER_LINES)
        at_work = [i for i, entry in enumerate(entries) if entry.state is State.RUNNING]
        first = max(0, min((at_work or [0])[0] - room // 2, len(entries) - room))
        return entries[first : first + room]

    def __enter__(self) -> "StatusTable":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._console.is_terminal:
            self._draw()
            self._live.stop()


def percent(fraction: float | None) -> str:
    """A fraction in percent; "–" if it is not known."""
    return "–" if fraction is None else f"{100 * fraction:.2f}%"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; days where they say enough."""
    day = 24 * 60 * 60
    if seconds >= day:
        return f"{seconds / day:,.1f} days"
    return str(datetime.timedelta(seconds=round(seconds)))
