"""The pool finishes what can be finished, whatever happens to a worker."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from configs import digits
from resnet_jax import runs
from resnet_jax.runs import Recipe, lockfile
from resnet_jax.sweeps import local_pool
from resnet_jax.sweeps.local_pool import RESTARTS, LocalPool, Slot
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import State, StatusTable

KILLED, BUG, WRONG_INPUT, STOPPED = -9, 1, 2, 75


class FakeWorker:
    """Ends with a given code at the second question, and with 75 when it is asked to stop."""

    def __init__(self, folder: Path, code: int):
        folder.mkdir(exist_ok=True)
        (folder / "log.txt").write_text("first line\nlast line\n")
        if code == 0:
            runs.write_json(folder / "summary.json", {"status": "completed", "train_error": 0.1})
        self._code, self._questions, self._stopped = code, 0, False

    def poll(self) -> int | None:
        self._questions += 1
        if self._stopped:
            return STOPPED
        return self._code if self._questions > 1 else None

    def terminate(self) -> None:
        self._stopped = True

    def kill(self) -> None:
        self._code = KILLED


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_pool, "_POLL_SECONDS", 0.0)


def planned(*names: str) -> list[PlannedRun]:
    recipe = Recipe.from_config(digits.get_config())
    return [PlannedRun(name, {}, "", recipe) for name in names]


class Scene:
    """A pool of one worker whose runs end with the given codes, one a start."""

    slots = (Slot(),)

    def __init__(self, workdir: Path, codes: dict[str, list[int]]):
        self.workdir = workdir
        self.started: list[str] = []
        self.runs = planned(*codes)
        self._codes: dict[str, Iterator[int]] = {name: iter(codes[name]) for name in codes}
        self.table = StatusTable(workdir, self.runs, {})
        self.pool = LocalPool(workdir, self.runs, self.slots, self._start, self.table)

    def _start(self, run: PlannedRun, workdir: Path, slot: Slot) -> FakeWorker:
        self.started.append(run.name)
        return FakeWorker(workdir / run.name, next(self._codes[run.name]))

    def work(self, asked=lambda: False, end: float = math.inf) -> dict[str, State]:
        self.pool.work(self.runs, asked, end)
        return self.pool.ended


def test_killed_worker_is_replaced_before_other_runs_start(tmp_path: Path):
    scene = Scene(tmp_path, {"a": [KILLED, STOPPED, 0], "b": [0]})
    assert scene.work() == {"a": State.DONE, "b": State.DONE}
    assert scene.started == ["a", "a", "a", "b"]


def test_worker_that_is_always_killed_is_given_up(tmp_path: Path, capsys):
    scene = Scene(tmp_path, {"a": [KILLED] * (RESTARTS + 1), "b": [0]})
    assert scene.work() == {"a": State.FAILED, "b": State.DONE}
    assert scene.started.count("a") == RESTARTS + 1
    assert "killed by SIGKILL" in capsys.readouterr().out


@pytest.mark.parametrize("code", [BUG, WRONG_INPUT])
def test_failed_run_is_not_repeated_and_others_are_trained(tmp_path: Path, capsys, code: int):
    scene = Scene(tmp_path, {"a": [code], "b": [0]})
    assert scene.work() == {"a": State.FAILED, "b": State.DONE}
    assert f"a: failed, last line ({tmp_path / 'a' / 'log.txt'})" in capsys.readouterr().out


def test_bugs_traceback_is_shown_by_its_last_line(tmp_path: Path, capsys):
    class Buggy(Scene):
        def _start(self, run, workdir, slot):
            worker = super()._start(run, workdir, slot)
            (workdir / run.name / "error.txt").write_text("Traceback\n  …\nKeyError: 'x'\n")
            return worker

    Buggy(tmp_path, {"a": [BUG]}).work()
    assert "a: failed, KeyError: 'x' (" in capsys.readouterr().out


def test_claimed_folder_is_waited_for_while_others_run(tmp_path: Path):
    scene = Scene(tmp_path, {"a": [0], "b": [0]})
    with contextlib.ExitStack() as claimed:
        claimed.enter_context(lockfile.claim(tmp_path / "a"))

        def asked() -> bool:
            if "b" in scene.pool.ended:
                claimed.close()
            return False

        assert scene.work(asked) == {"b": State.DONE, "a": State.DONE}
    assert scene.started == ["b", "a"]


def test_stop_is_passed_on_and_no_run_starts_after_it(tmp_path: Path):
    scene = Scene(tmp_path, {"a": [0], "b": [0]})
    answers = iter([False, True])
    assert scene.work(lambda: next(answers, True)) == {"a": State.STOPPED}
    assert scene.started == ["a"]


class Deaf(FakeWorker):
    """Hears no request to stop; ends when it is killed, as submitit's jobs do with code 1."""

    def __init__(self, folder: Path, code: int):
        super().__init__(folder, code)
        self._killed = False

    def poll(self) -> int | None:
        return self._code if self._killed else None

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self._killed = True


@pytest.mark.parametrize("code", [KILLED, BUG])
def test_run_that_has_not_saved_some_time_after_the_end_is_killed(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, code: int
):
    class Compiling(Scene):
        def _start(self, run, workdir, slot):
            self.started.append(run.name)
            return Deaf(workdir / run.name, code)

    monkeypatch.setattr(local_pool, "GRACE_SECONDS", 0.2)
    scene, began = Compiling(tmp_path, {"a": [], "b": []}), time.monotonic()
    assert scene.work(end=began + 0.1) == {"a": State.STOPPED}
    assert time.monotonic() - began >= 0.3
    assert scene.started == ["a"]
    assert capsys.readouterr().out.count("killed, not saved within 0.2 s: a\n") == 1


def test_run_that_has_a_slot_of_its_own_resumes_there(tmp_path: Path):
    class Uneven(Scene):
        slots = (Slot(cores=(0, 1)), Slot(cores=(2,)))
        seen: ClassVar = []

        def _start(self, run, workdir, slot):
            self.seen.append((run.name, slot.cores))
            return super()._start(run, workdir, slot)

    scene = Uneven(tmp_path, {"a": [0], "b": [KILLED, 0]})
    scene.pool.work(scene.runs[1:], lambda: False)
    assert scene.seen == [("b", (2,)), ("b", (2,))]
