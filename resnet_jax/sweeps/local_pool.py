"""Works through the runs of a sweep: as many at once as there are slots."""

import collections
import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from resnet_jax import errors, runs
from resnet_jax.runs import lockfile
from resnet_jax.sweeps.devices import Slot
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.progress import State
from resnet_jax.sweeps.status import Board
from resnet_jax.sweeps.workers import Worker

RESTARTS = 3
"""How often a run goes on in the same sweep after its process was killed, e.g. for memory."""

GRACE_SECONDS = 60
"""What a run may take to save once the sweep's time is up."""

_POLL_SECONDS = 0.2
_FINISHED = {"completed": State.DONE, "diverged": State.DIVERGED}


@dataclasses.dataclass(frozen=True)
class _Job:
    run: PlannedRun
    worker: Worker
    slot: Slot


class Crew:
    """Runs that wait, runs at work and how runs ended.

    Args:
      workdir: the sweep's folder.
      slots: one for each worker.
      start: starts a run in its slot.
      board: is told what happens.
    """

    def __init__(
        self,
        workdir: Path,
        slots: Sequence[Slot],
        start: Callable[[PlannedRun, Path, Slot], Worker],
        board: Board,
    ):
        self._workdir = workdir
        self._free = list(slots)
        self._start = start
        self._board = board
        self._waiting: list[PlannedRun] = []
        self._at_work: list[_Job] = []
        self._deaths = collections.Counter()
        self._stopping = False
        self._out_of_time = False
        self.ended: dict[str, State] = {}
        """How each run ended, or stopped."""

    def work(
        self,
        planned: Sequence[PlannedRun],
        asked_to_stop: Callable[[], bool],
        end: float = math.inf,
    ) -> None:
        """Works until every run has ended, or until those at work have stopped if asked to.

        A second Ctrl-C, which comes as `KeyboardInterrupt`, kills the runs at work.

        Args:
          planned: the runs, in order.
          asked_to_stop: asked several times a second.
          end: instant of the monotonic clock at which they are to save and stop. Those that have
            not done so `GRACE_SECONDS` later are killed: a run that compiles hears nothing.
        """
        self._waiting = list(planned)
        try:
            while self._at_work or (self._waiting and not self._stopping):
                now = time.monotonic()
                if not self._stopping and (asked_to_stop() or now >= end):
                    self._stop()
                self._collect()
                if not self._stopping:
                    self._start_free()
                if self._at_work and not self._out_of_time and now >= end + GRACE_SECONDS:
                    self._kill_late()
                self._board.refresh()
                time.sleep(_POLL_SECONDS)
        finally:
            for job in self._at_work:
                job.worker.kill()

    @property
    def finished(self) -> list[str]:
        """Names of the runs that need no further start, failed ones among them."""
        return [name for name, state in self.ended.items() if state is not State.STOPPED]

    def _stop(self) -> None:
        self._stopping = True
        self._board.say("stopping: the runs at work are saving; Ctrl-C again kills them")
        for job in self._at_work:
            job.worker.stop()

    def _kill_late(self) -> None:
        self._out_of_time = True
        names = ", ".join(job.run.name for job in self._at_work)
        self._board.say(f"killed, not saved within {GRACE_SECONDS} s: {names}")
        for job in self._at_work:
            job.worker.kill()

    def _start_free(self) -> None:
        for run in list(self._waiting):
            if not self._free:
                return
            folder = self._workdir / run.name
            # A process that a killed sweep left behind is saving there: it will be done soon.
            if lockfile.is_claimed(folder):
                continue
            self._waiting.remove(run)
            slot = self._free.pop(0)
            # So that what is found there afterwards is of this start.
            (folder / "error.txt").unlink(missing_ok=True)
            worker = self._start(run, self._workdir, slot)
            self._board.started(run)
            self._at_work.append(_Job(run, worker, slot))

    def _collect(self) -> None:
        for job in list(self._at_work):
            code = job.worker.poll()
            if code is not None:
                self._at_work.remove(job)
                self._free.insert(0, job.slot)
                self._settle(job, code)

    def _settle(self, job: _Job, code: int) -> None:
        run, folder = job.run, self._workdir / job.run.name
        killed = code < 0 or code == errors.STOPPED or self._out_of_time
        if code == 0 and (state := finished_state(folder)):
            self._end(run, state, "")
        elif killed and self._stopping:
            self._end(run, State.STOPPED, "")
        elif killed and self._deaths[run.name] < RESTARTS:
            self._deaths[run.name] += 1
            self._waiting.insert(0, run)
            self._board.waits(run, f"{_describe(code)}; it goes on from its last checkpoint")
        elif code == errors.WRONG_INPUT and lockfile.is_claimed(folder):
            self._waiting.append(run)
            self._board.waits(run, "another process is training there; waits for it")
        else:
            reason = _describe(code) if killed else _last_line(folder, code)
            self._end(run, State.FAILED, f"{reason} ({folder / 'log.txt'})")

    def _end(self, run: PlannedRun, state: State, message: str) -> None:
        self.ended[run.name] = state
        self._board.ended(run, state, message)


def finished_state(folder: Path) -> State | None:
    """How the run in a folder finished; None if it has not."""
    return _FINISHED.get(runs.read_run(folder).status)


def _describe(code: int) -> str:
    if code >= 0:
        return "stopped by someone else"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _last_line(folder: Path, code: int) -> str:
    """What the run said last: the end of its traceback, or of its log."""
    error = folder / "error.txt"
    source = error if error.exists() else folder / "log.txt"
    text = source.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
