"""What can go wrong with a run, and what the run promises to do about it.

A fault that stops the run takes its processes while they train; one that damages takes its folder
while they are down. Each says what the processes did that they should not have, or "".
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.trainers import SAVE_TIMEOUT, Trainers, poison
from resnet_jax.errors import STOPPED, WRONG_INPUT
from resnet_jax.runs import checkpoint_steps

GRACE = 5.0
"""Seconds that a scheduler leaves the other processes when one of them has ended."""

PATIENCE = 240.0
"""Seconds after which a start, or an end, counts as hanging."""

PAUSE = 60.0
"""Seconds for which a process stands still."""

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def kill_one(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    trainers.signal(chance.randrange(trainers.count), signal.SIGKILL)
    trainers.end(PATIENCE, GRACE)
    return ""


def kill_all(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    trainers.kill()
    return ""


def terminate_one(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    trainers.signal(chance.randrange(trainers.count), signal.SIGTERM)
    trainers.end(PATIENCE, PATIENCE)
    if trainers.finished and not any(trainers.codes):
        return ""  # It came to its end before the processes had agreed on where to stop.
    reached = max(trainers.printed_steps(), default=0)
    saved = reached in checkpoint_steps(trainers.workdir)
    return _expect(trainers, STOPPED) or ("" if saved else f"step {reached} was not saved")


def fill_disk(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    with disk.full(trainers):
        trainers.end(PATIENCE, GRACE)
    return _refusal(trainers)


def read_only(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    with disk.read_only(trainers.workdir):
        trainers.end(PATIENCE, GRACE)
    return _refusal(trainers)


def not_a_number(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    """A parameter becomes NaN, in the newest checkpoint, as by a fault of memory before a save.

    The run must record that it diverged. Then what whoever notices it would do: the summary and
    the poisoned checkpoint are removed, and the run resumes from the one before.
    """
    trainers.kill()
    poisoned = poison(trainers.workdir)
    trainers.start()
    trainers.end(PATIENCE, PATIENCE)
    complaint = _expect(trainers, 0)
    if not complaint and f"diverged at step {poisoned + 1}" not in trainers.told():
        complaint = "the loss was not finite, and the run does not say so"
    (trainers.workdir / "summary.json").unlink(missing_ok=True)
    shutil.rmtree(trainers.workdir / "checkpoints" / str(poisoned))
    return complaint


def stand_still(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    """One process stops for a minute, as on a machine that swaps; then all must go on."""
    which, rows = chance.randrange(trainers.count), len(trainers.printed_steps())
    trainers.signal(which, signal.SIGSTOP)
    time.sleep(PAUSE)
    trainers.signal(which, signal.SIGCONT)
    return _goes_on(trainers, rows)


def set_clock_back(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    """The time of day jumps back by an hour while they train.

    A single process keeps training. Several are ended by JAX's coordination service (0.10.2), for
    their last heartbeats are then in the future; those need only resume.
    """
    trainers.kill()
    clock = trainers.workdir.parent / "clock"
    clock.write_text("+0")
    trainers.start(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    trainers.wait_for(3, PATIENCE)
    rows = len(trainers.printed_steps())
    clock.write_text("-1h")
    complaint = _goes_on(trainers, rows)
    lost = trainers.count > 1 and "stopped sending heartbeats" in trainers.told()
    return "" if lost else complaint


def fail_to_read(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    """A disk that fails when the newest checkpoint is first read.

    The run may try again, or end with the one line of a disk that fails; it must not take the
    checkpoint for a damaged one.
    """
    trainers.kill()
    checkpoints = trainers.workdir / "checkpoints"
    newest = checkpoints / str(checkpoint_steps(trainers.workdir)[-1])
    before = set(checkpoints.glob(f"{newest.name}.damaged*"))
    files = [f"--trace-path={path}" for path in newest.rglob("*") if path.is_file()]
    error, calls = chance.choice(("EIO", "ESTALE")), "openat,read,pread64"
    times = chance.choice(("1", "1..3"))  # of each thread
    inject = [f"--trace={calls}", f"--inject={calls}:error={error}:when={times}"]
    # Detached, strace leaves the process a child of this one.
    trainers.start(["strace", "-D", "-f", "-qqq", "--output=/dev/null", *inject, *files])
    try:
        trainers.wait_for(2, PATIENCE)
        complaint = ""
        if not trainers.running():
            trainers.end(PATIENCE, GRACE)
            complaint = "" if trainers.finished else _refusal(trainers)
    finally:
        trainers.kill()
    aside = [path.name for path in {*checkpoints.glob(f"{newest.name}.damaged*")} - before]
    return f"taken for damaged: {aside}" if aside else complaint


def run_out_of_memory(trainers: Trainers, disk: "Disk", chance: random.Random) -> str:
    """No process gets more memory than it has; with a checkpoint every few steps one needs some.

    One must end by itself, if only when the time for a save is over: a callback of TensorStore's
    that cannot even raise for want of memory never answers it.
    """
    for pid in trainers.pids:
        status = Path(f"/proc/{pid}/status").read_text()
        size = 1024 * int(status.split("VmSize:")[1].split()[0])
        resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    try:
        trainers.end(SAVE_TIMEOUT + PAUSE, GRACE)
    except TimeoutError:
        return "hangs without memory"
    return ""


STOPS: dict[str, tuple[Callable[[Trainers, "Disk", random.Random], str], int]] = {
    "SIGKILL to one process": (kill_one, 14),
    "SIGKILL to all": (kill_all, 12),
    "SIGTERM to one process": (terminate_one, 10),
    "disk full": (fill_disk, 8),
    "workdir read-only": (read_only, 8),
    "NaN in the parameters": (not_a_number, 5),
    "process stands still": (stand_still, 3),
    "clock set back": (set_clock_back, 5),
    "checkpoint unreadable once": (fail_to_read, 8),
    "memory used up": (run_out_of_memory, 7),
}
"""What stops a run, and how often each kind comes, relative to the others."""


def truncate(file: Path, chance: random.Random) -> None:
    os.truncate(file, chance.randrange(file.stat().st_size) if file.stat().st_size else 0)


def flip_bit(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path, random.Random], object], int]] = {
    "checkpoint file truncated": (truncate, 13),
    "checkpoint file deleted": (lambda file, chance: file.unlink(), 12),
    "checkpoint file zeroed": (lambda file, _: file.write_bytes(bytes(file.stat().st_size)), 9),
    "checkpoint bit flipped": (flip_bit, 9),
}
"""What damages a checkpoint's file, and how often each kind comes, as above."""


def left_out() -> dict[str, str]:
    """The kinds for which this machine lacks a tool, with the Debian package that has it."""
    lacks = {"clock set back": "" if FAKETIME else "faketime"}
    lacks["checkpoint unreadable once"] = "" if shutil.which("strace") else "strace"
    return {kind: package for kind, package in lacks.items() if package}


def deal(count: int, chance: random.Random) -> list[str]:
    """So many faults in random order: one of each kind, and others by their weights."""
    kinds = {**STOPS, **DAMAGES}.items()
    weights = {kind: weight for kind, (_, weight) in kinds if kind not in left_out()}
    more = chance.choices(list(weights), list(weights.values()), k=count - len(weights))
    deck = [*weights, *more]
    chance.shuffle(deck)
    return deck


def damage(kind: str, checkpoint: Path, chance: random.Random) -> str:
    """Damages one file of a checkpoint, the larger ones more often; returns its name."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    (file,) = chance.choices(files, [file.stat().st_size + 200 for file in files])
    do, _ = DAMAGES[kind]
    do(file, chance)
    return str(file.relative_to(checkpoint))


def _goes_on(trainers: Trainers, rows: int) -> str:
    """Waits until they have printed more than so many rows, and kills them."""
    trainers.wait_for(rows + 3, PATIENCE)
    if trainers.running():
        trainers.kill()
        return ""
    trainers.end(PATIENCE, PATIENCE)  # It may have come to its end.
    return _expect(trainers, 0)


def _expect(trainers: Trainers, code: int) -> str:
    wrong = any(found != code for found in trainers.codes)
    return f"exit codes {trainers.codes}, not {code}: {_errors(trainers)}" if wrong else ""


def _refusal(trainers: Trainers) -> str:
    """What is wrong with how the processes ended that could not save."""
    for number, code in enumerate(trainers.codes):
        told = trainers.told(number)
        errors = [line for line in told.splitlines() if line.startswith("error: ")]
        if code == WRONG_INPUT and len(errors) == 1 and "Traceback" not in told:
            return ""  # The first to notice says so; the others are ended by its end.
    return f"exit codes {trainers.codes}: {_errors(trainers)}"


def _errors(trainers: Trainers) -> str:
    lines = [line for line in trainers.told().splitlines() if not line.startswith("step ")]
    return " | ".join(lines[-3:])[:300]


class Disk:
    """Where the runs lie: a small tmpfs if this is root, who can fill it and make it read-only.

    Anyone else's disk is "full" by a limit on the size of files, and read-only by permissions.
    """

    def __init__(self, folder: Path, megabytes: int = 64):
        self.folder, self._mounted = folder, os.geteuid() == 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._mounted:
            size = f"size={megabytes}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)

    @property
    def means(self) -> str:
        """How it is filled and made read-only, for people."""
        if self._mounted:
            return "a tmpfs filled up; a read-only bind mount over the workdir"
        return "RLIMIT_FSIZE on the processes; the workdir's permissions"

    @contextlib.contextmanager
    def full(self, trainers: Trainers) -> Iterator[None]:
        if not self._mounted:
            for pid in trainers.pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            yield
            return
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        try:
            yield
        finally:
            ballast.unlink()

    @contextlib.contextmanager
    def read_only(self, workdir: Path) -> Iterator[None]:
        """Root ignores permissions, and a file system in use cannot be remounted: so a bind."""
        if self._mounted:
            subprocess.run(["mount", "--bind", workdir, workdir], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", workdir], check=True)
        else:
            _chmod(workdir, 0o555)
        try:
            yield
        finally:
            if self._mounted:
                _unmount(workdir)
            else:
                _chmod(workdir, 0o755)

    def close(self) -> None:
        if self._mounted:
            _unmount(self.folder)


def _chmod(workdir: Path, mode: int) -> None:
    for folder in (workdir, workdir / "checkpoints"):
        folder.chmod(mode)


def _unmount(folder: Path) -> None:
    for _ in range(50):
        if subprocess.run(["umount", folder], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", folder], check=True)
