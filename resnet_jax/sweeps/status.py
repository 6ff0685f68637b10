"""How far a sweep's runs are: read from their folders, and shown while they are trained."""

import dataclasses
import datetime
import enum
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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
    RESUMED = "resumed"  # running, from a checkpoint of an earlier process
    STOPPED = "stopped"
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


AT_WORK = (State.RUNNING, State.RESUMED)
ENDED = (State.DONE, State.DIVERGED, State.FAILED)
_FINISHED = {"completed": State.DONE, "diverged": State.DIVERGED}
_STYLES = {
    State.RUNNING: "cyan",
    State.RESUMED: "cyan",
    State.DONE: "green",
    State.DIVERGED: "magenta",
    State.FAILED: "bold red",
}


def finished_state(folder: Path) -> State | None:
    """How the run in a folder finished; None if it has not."""
    return _FINISHED.get(runs.read_run(folder).status)


@dataclasses.dataclass(frozen=True)
class Progress:
    """A run's last metrics; errors are fractions, None is not known."""

    step: int = 0
    loss: float | None = None
    train_error: float | None = None
    test_error: float | None = None
    images_per_second: float | None = None


def read_progress(folder: Path) -> Progress:
    """The metrics of the last training row and of the last test row."""
    last: dict[str, runs.Row] = {}
    for row in _last_rows(folder / "metrics.jsonl"):
        last.setdefault(row.get("split"), row)
        if {"train", "test"} <= last.keys():
            break
    train, test = last.get("train", {}), last.get("test", {})
    return Progress(
        step=train.get("step", 0),
        loss=train.get("loss"),
        train_error=train.get("error"),
        test_error=test.get("error"),
        images_per_second=train.get("images_per_second"),
    )


def last_checkpoint(folder: Path) -> int:
    """The step from which the folder's run would resume."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _last_rows(path: Path) -> Iterator[runs.Row]:
    """Rows from the last one backwards; a row that is still being written is left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for line in reversed(lines):
        try:
            yield json.loads(line)
        except ValueError:  # Cut at either end.
            continue


@dataclasses.dataclass
class Entry:
    """A run in the table. `first_step` is where this start of the sweep found it."""

    run: PlannedRun
    state: State
    first_step: int = 0
    progress: Progress = dataclasses.field(default_factory=Progress)

    @property
    def num_steps(self) -> int:
        return self.run.config.num_steps

    @property
    def seconds_left(self) -> float | None:
        """Of a run at work, by its last images per second; None if there are none yet."""
        rate = self.progress.images_per_second
        if self.state not in AT_WORK or not rate:
            return None
        return (self.num_steps - self.progress.step) * self.run.config.batch_size / rate

    def cells(self) -> list[str | Text]:
        """This entry's row of the table."""
        seen = self.progress
        if self.state is State.WAITING and not seen.step:
            return [self.run.name, Text(self.state)]
        return [
            self.run.name,
            Text(self.state, style=_STYLES.get(self.state, "")),
            f"{seen.step}/{self.num_steps}",
            "–" if seen.loss is None else f"{seen.loss:.4f}",
            percent(seen.train_error),
            percent(seen.test_error),
            f"{seen.images_per_second:,.0f}" if seen.images_per_second else "–",
            "–" if self.seconds_left is None else clock(self.seconds_left),
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
        live = Live(console=self._console, auto_refresh=False)
        self._live = live if self._console.is_terminal else None
        self._began = time.monotonic()
        self._drawn = 0.0
        self.entries = {
            run.name: Entry(run, finished.get(run.name, State.WAITING)) for run in planned
        }
        for name in finished:
            self._look(name)

    def started(self, run: PlannedRun) -> None:
        """The run has been given to a worker."""
        entry = self.entries[run.name]
        entry.first_step = last_checkpoint(self._workdir / run.name)
        entry.progress = Progress(step=entry.first_step)
        entry.state = State.RESUMED if entry.first_step else State.RUNNING
        how = f"resumes from step {entry.first_step}" if entry.first_step else "started"
        self._note(f"{run.name}: {how}")

    def waits(self, run: PlannedRun, why: str) -> None:
        """The run waits to be started again."""
        self.entries[run.name].state = State.WAITING
        self.say(f"{run.name}: {why}")

    def ended(self, run: PlannedRun, state: State, message: str) -> None:
        """The run is at an end, or stopped."""
        self.entries[run.name].state = state
        step = self._look(run.name).step
        line = f"{run.name}: {state}"
        if state is State.DONE:
            # Of the last epoch, as everywhere; the metrics here are those of the last few steps.
            final = runs.read_run(self._workdir / run.name).summary or {}
            line += f", training error {percent(final.get('train_error'))}, "
            line += f"test error {percent(final.get('test_error'))}"
        elif state in (State.DIVERGED, State.STOPPED):
            line += f" at step {step}"
        line += f", {message}" if message else ""
        (self.say if state is State.FAILED else self._note)(f"{line}  [{self.summary()}]")

    def say(self, line: str) -> None:
        """Prints a line that must be seen."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _note(self, line: str) -> None:
        """Prints what the table would show by itself."""
        if not self._live:
            self.say(line)

    def refresh(self) -> None:
        """Brings the table up to date; called several times a second."""
        if self._live and time.monotonic() - self._drawn >= _REFRESH_SECONDS:
            self._draw()

    def summary(self) -> str:
        """How far the whole is, in a few words."""
        states = [entry.state for entry in self.entries.values()]
        finished = sum(state in (State.DONE, State.DIVERGED) for state in states)
        failed, left = states.count(State.FAILED), self.seconds_left()
        parts = [f"{finished} of {len(states)} finished"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{clock(time.monotonic() - self._began)} so far")
        parts += [f"ETA {clock(left)}"] if left else []
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Of the whole: by the work done since this start, in steps times layers."""
        done = left = 0.0
        for entry in self.entries.values():
            if entry.state in AT_WORK:
                self._look(entry.run.name)
            part = entry.run.work / entry.num_steps
            done += part * max(0, entry.progress.step - entry.first_step)
            if entry.state not in ENDED:
                left += part * (entry.num_steps - entry.progress.step)
        return (time.monotonic() - self._began) * left / done if done else None

    def _look(self, name: str) -> Progress:
        entry, found = self.entries[name], read_progress(self._workdir / name)
        # A resumed run's file first still has rows that will be made again.
        if entry.state in ENDED or found.step >= entry.first_step:
            entry.progress = found
        return entry.progress

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
        at_work = [i for i, entry in enumerate(entries) if entry.state in AT_WORK]
        first = max(0, min((at_work or [0])[0] - room // 2, len(entries) - room))
        return entries[first : first + room]

    def __enter__(self) -> "StatusTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._draw()
            self._live.stop()


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}%"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; days where they say enough."""
    day = 24 * 60 * 60
    if seconds >= day:
        return f"{seconds / day:,.1f} days"
    return str(datetime.timedelta(seconds=round(seconds)))
