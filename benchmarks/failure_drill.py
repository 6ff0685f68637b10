"""Strikes a training run with faults, and compares it with a run that nothing disturbed.

    python -m benchmarks.failure_drill --faults=100 --seed=0

Trains a narrow ResNet-8 on digits in `--processes` processes of `--devices` CPU devices each, with
a checkpoint every four steps, and again and again strikes them with one of fourteen faults: kills
or stops processes, takes their disk or memory, sets their clock back, damages the newest checkpoint
or lets its reading fail once, makes a parameter NaN (benchmarks.faults). Each time it starts the
same command again, and asks: did the processes end as they promise, did the run go on, and are its
figures those of the undisturbed run? When a run is finished before its faults are, its last
parameters, batch statistics and momentum are compared bit for bit, and another run begins. The
table it prints at the end has a line for each kind of fault:

    injected    how often it struck
    recovered   how often the run then went on, from a whole checkpoint
    as promised how often all processes ended as they should: exit codes, one line for people
    steps lost  steps that were done again
    wrong       how often figures then differed from those of the undisturbed run

The exit code is 0 if everything was recovered, as promised and nothing was wrong.

As root it mounts a small tmpfs to fill up. Two kinds need Debian's packages faketime and strace:
what is left out without them is named at the end. The workdir is left for inspection if something
was wrong, and removed otherwise, unless it was given.
"""

import collections
import contextlib
import importlib.metadata
import os
import platform
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from absl import flags

from benchmarks import faults
from benchmarks.trainers import Trainers, differences, final_state
from experiments import command
from resnet_jax.runs import checkpoint_steps

_FAULTS = flags.DEFINE_integer("faults", 100, "how many in all; each kind comes once at least", 14)
_SEED = flags.DEFINE_integer("seed", 0, "of the schedule")
_WORKDIR = flags.DEFINE_string("workdir", None, "a folder to work in; default a temporary one")
_PROCESSES = flags.DEFINE_integer("processes", 2, "that train together", 1)
_DEVICES = flags.DEFINE_integer("devices", 2, "of each process", 1)
_STEPS = flags.DEFINE_integer("num_steps", 240, "of each run", 20)


COLUMNS = ("injected", "recovered", "as promised", "steps lost", "wrong")


class Drill:
    """Runs that are struck, one after another, and what came of it."""

    def __init__(self, folder: Path, disk: faults.Disk):
        self._disk = disk
        self._chance = random.Random(_SEED.value)
        self._size = {"processes": _PROCESSES.value, "devices": _DEVICES.value}
        self._logs = folder / "logs"
        self.tallies: dict[str, Counter[str]] = collections.defaultdict(Counter)
        self.starts = self.runs = 0
        self.failures: list[str] = []
        self._reference = self._new(folder / "undisturbed")
        self._undisturbed()
        self._expected = self._reference.rows()
        self._pending: list[tuple[str, int]] = []  # faults, and the step they threw back from
        self._run = self._new(disk.folder / "run")

    def _undisturbed(self) -> None:
        for _ in range(3):
            self._reference.start()
            self._reference.end(10 * faults.PATIENCE, faults.PATIENCE)
            if not any(self._reference.codes):
                return
            # To be undisturbed it must not resume, but begin again.
            shutil.rmtree(self._reference.workdir, ignore_errors=True)
        raise RuntimeError(f"the undisturbed run failed: {self._reference.told()[-2000:]}")

    def _new(self, workdir: Path) -> Trainers:
        return Trainers(workdir, self._logs, steps=_STEPS.value, **self._size)

    def strike_all(self, deck: list[str]) -> None:
        """Strikes with every fault of the deck, and lets the last run finish."""
        damages = [kind for kind in deck if kind in faults.DAMAGES]
        stops = [kind for kind in deck if kind in faults.STOPS]
        while stops or damages:
            stop = stops[0] if stops else None
            if not self._train_until_struck(stop):
                continue  # The run was finished too soon; the fault strikes the next one.
            stops = stops[1:]
            share = len(damages) / (len(stops) + 1)  # So that both last until the end.
            several = len(checkpoint_steps(self._run.workdir)) > 1 and not self._run.finished
            # A NaN took one checkpoint away; of two others the older may be half deleted.
            several &= stop != "NaN in the parameters"
            if damages and several and self._chance.random() < share:
                self._damage(damages.pop())
        self._start()
        self._finish()

    def _train_until_struck(self, stop: str | None) -> bool:
        """Starts the run and stops it with a fault; False if it came to its end before.

        Without a fault it is only taken down, for what damages its folder.
        """
        self._start()
        rows = 12 if stop == "NaN in the parameters" else self._chance.randint(5, 10)
        try:
            if stop and "SIGKILL" in stop and self._chance.random() < 0.2:
                time.sleep(self._chance.uniform(0, 10))  # somewhere in the start
            else:
                self._run.wait_for(rows, faults.PATIENCE)
                time.sleep(self._chance.uniform(0, 0.2))
            self._settle()
            reached = max(self._run.printed_steps(), default=0)
            if not self._run.running() or reached > _STEPS.value - 20:
                self._finish()
                return False
            if not stop:
                self._run.kill()
                return True
            strike, _ = faults.STOPS[stop]
            complaint = strike(self._run, self._disk, self._chance)
        except TimeoutError as error:
            self._run.kill()
            complaint, reached = f"hangs: {error}", 0
        self._note(stop or "no fault", max([reached, *self._run.printed_steps()]), complaint)
        return True

    def _start(self) -> None:
        self._run.start()
        self.starts += 1

    def _damage(self, kind: str) -> None:
        newest = checkpoint_steps(self._run.workdir)[-1]
        file = faults.damage(kind, self._run.workdir / "checkpoints" / str(newest), self._chance)
        self._note(kind, newest, "", f"{newest}/{file}")

    def _note(self, kind: str, reached: int, complaint: str, what: str = "") -> None:
        tally = self.tallies[kind]
        tally["injected"] += 1
        tally["as promised"] += not complaint
        self._pending.append((kind, reached))
        print(
            f"{self._total()['injected']:>4}  {kind} {what} at step {reached}"
            + (f"  NOT AS PROMISED: {complaint}" if complaint else ""),
            flush=True,
        )

    def _settle(self) -> None:
        """Charges the faults since the last row with the steps that the last start did again."""
        steps = self._run.printed_steps()
        if not steps or not self._pending:
            return
        resumed = steps[0] - 1
        wrong = any(row not in self._expected for row in self._run.rows())
        for kind, reached in self._pending[::-1]:
            tally = self.tallies[kind]
            tally["recovered"] += 1
            tally["steps lost"] += max(0, reached - resumed)
            tally["wrong"] += wrong
            resumed = max(resumed, reached)  # What a later fault threw back is not this one's.
        self._pending = []

    def _finish(self) -> None:
        """Lets the run end, compares it with the undisturbed one, and makes room for another."""
        run = self._run
        with contextlib.suppress(TimeoutError):
            run.end(10 * faults.PATIENCE, faults.PATIENCE)
        self._settle()
        self.runs += 1
        if any(run.codes):
            self._fail(f"run {self.runs} did not resume: {run.codes}\n{run.told()[-3000:]}")
            self._pending = []  # not recovered
        else:
            for kind, _ in self._pending:  # The run had just ended when they struck.
                self.tallies[kind]["recovered"] += 1
            self._pending = []
            last = final_state(run.workdir)
            different = differences(last, final_state(self._reference.workdir))
            if different or run.rows() != self._expected:
                self._fail(f"run {self.runs} differs: {different or 'its rows'}")
        aside = [path.name for path in (run.workdir / "checkpoints").glob("*.damaged*")]
        print(f"run {self.runs} ended at {run.codes}; damaged ones set aside: {aside}", flush=True)
        shutil.rmtree(run.workdir)

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAILURE: {what}", flush=True)

    def _total(self) -> Counter[str]:
        return sum(self.tallies.values(), Counter())

    def table(self) -> str:
        """The result, as Markdown."""
        lines = [f"| fault | {' | '.join(COLUMNS)} |", "|---|" + "--:|" * len(COLUMNS)]
        for kind, tally in [*sorted(self.tallies.items()), ("**all**", self._total())]:
            lines.append(f"| {kind} | {' | '.join(str(tally[name]) for name in COLUMNS)} |")
        return "\n".join(lines)

    @property
    def flawless(self) -> bool:
        """Whether everything was recovered, as promised and right."""
        whole = all(
            t["injected"] == t["recovered"] == t["as promised"] and not t["wrong"]
            for t in self.tallies.values()
        )
        return whole and not self.failures


def main() -> int:
    """Prints each fault as it strikes, and the table; returns the exit code."""
    began = time.time()
    folder = Path(_WORKDIR.value or tempfile.mkdtemp(prefix="failure_drill_"))
    folder.mkdir(parents=True, exist_ok=True)
    # Each start would compile the same again; with the cache it takes as long as its imports.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with contextlib.closing(faults.Disk(folder / "disk")) as disk:
        drill = Drill(folder, disk)
        print(f"undisturbed run: {time.time() - began:.0f} s", flush=True)
        drill.strike_all(faults.deal(_FAULTS.value, random.Random(_SEED.value)))
    print(f"\n{drill.table()}\n")
    print(
        f"{drill.runs} runs of {_STEPS.value} steps, {drill.starts} starts of {_PROCESSES.value} "
        f"process(es) with {_DEVICES.value} device(s) each, {time.time() - began:.0f} s in all; "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"JAX {importlib.metadata.version('jax')}, "
        f"Orbax {importlib.metadata.version('orbax-checkpoint')}; disk: {disk.means}"
    )
    print(f"{len(drill.failures)} failures of whole runs")
    for kind, package in faults.left_out().items():
        print(f"left out: {kind} (no {package} here)")
    if drill.flawless and not _WORKDIR.value:
        shutil.rmtree(folder)
    return 0 if drill.flawless else 1


if __name__ == "__main__":
    command.run(main)
