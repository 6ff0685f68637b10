"""Shows what becomes of a sweep's runs: here as plain lines, for logs and pipes."""

import dataclasses
import datetime
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax import runs
from resnet_jax.sweeps import progress
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.progress import Progress, State

AT_WORK = (State.RUNNING, State.RESUMED)
ENDED = (State.DONE, State.DIVERGED, State.FAILED)


@dataclasses.dataclass
class Entry:
    """A run on the board. `first_step` is where this start of the sweep found it."""

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


class Board:
    """Keeps an account of all runs, and prints a line whenever one starts or ends.

    Args:
      workdir: the sweep's folder.
      planned: all runs, in order.
      finished: those that an earlier start of the sweep has finished.
    """

    def __init__(self, workdir: Path, planned: Sequence[PlannedRun], finished: Mapping[str, State]):
        self._workdir = workdir
        self._began = time.monotonic()
        self.entries = {
            run.name: Entry(run, finished.get(run.name, State.WAITING)) for run in planned
        }
        for name in finished:
            self._look(name)

    def started(self, run: PlannedRun) -> None:
        """The run has been given to a worker."""
        entry = self.entries[run.name]
        entry.first_step = progress.last_checkpoint(self._workdir / run.name)
        entry.progress = Progress(step=entry.first_step)
        entry.state = State.RESUMED if entry.first_step else State.RUNNING
        how = f"goes on from step {entry.first_step}" if entry.first_step else "started"
        self.note(f"{run.name}: {how}")

    def waits(self, run: PlannedRun, why: str) -> None:
        """The run waits to be started again."""
        self.entries[run.name].state = State.WAITING
        self.say(f"{run.name}: {why}")

    def ended(self, run: PlannedRun, state: State, message: str) -> None:
        """The run is at an end, or stopped."""
        self.entries[run.name].state = state
        figures = self._look(run.name)
        line = f"{run.name}: {state}"
        if state is State.DONE:
            # Of the last epoch, as everywhere; the figures here are those of the last few steps.
            final = runs.read_run(self._workdir / run.name).summary or {}
            line += f", training error {percent(final.get('train_error'))}, "
            line += f"test error {percent(final.get('test_error'))}"
        elif state in (State.DIVERGED, State.STOPPED):
            line += f" at step {figures.step}"
        line += f", {message}" if message else ""
        (self.say if state is State.FAILED else self.note)(f"{line}  [{self.summary()}]")

    def note(self, line: str) -> None:
        """Prints what a table would show by itself."""
        self.say(line)

    def say(self, line: str) -> None:
        """Prints a line that must be seen."""
        print(line, flush=True)

    def refresh(self) -> None:
        """Called several times a second."""

    def summary(self) -> str:
        """How far the whole is, in a few words."""
        states = [entry.state for entry in self.entries.values()]
        finished = sum(state in (State.DONE, State.DIVERGED) for state in states)
        failed = states.count(State.FAILED)
        parts = [f"{finished} of {len(states)} finished"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{clock(time.monotonic() - self._began)} so far")
        left = self.seconds_left()
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
        entry = self.entries[name]
        found = progress.read(self._workdir / name)
        # A resumed run's file first still has rows that will be made again.
        if entry.state in ENDED or found.step >= entry.first_step:
            entry.progress = found
        return entry.progress

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def make(workdir: Path, planned: Sequence[PlannedRun], finished: Mapping[str, State]) -> Board:
    """A live table on a terminal, plain lines elsewhere."""
    if sys.stdout.isatty():
        from resnet_jax.sweeps.live import LiveBoard

        return LiveBoard(workdir, planned, finished)
    return Board(workdir, planned, finished)


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}%"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; days where they say enough."""
    day = 24 * 60 * 60
    if seconds >= day:
        return f"{seconds / day:,.1f} days"
    return str(datetime.timedelta(seconds=round(seconds)))
