"""Which process may write to the folder of a run or a sweep: the one that holds its file `.lock`.

And whose turn it is to make what several processes need.

Imports neither JAX nor Flax, as `runs` does not.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from resnet_jax.errors import InputError


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[str]:
    """Keeps other processes from writing to the same run's folder; yields this claim's mark.

    The operating system lets go of the claim when the process ends, however it ends. By the mark
    those who train together with the claimant know the folder, see `check`.

    Raises:
      InputError: another process has claimed the folder, it cannot be written, or its file system
        has no locks.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"workdir={str(workdir)!r}: cannot be written ({error.strerror})"
        ) from error
    with lock:
        if not _gets(lock, fcntl.LOCK_EX, workdir):
            raise InputError(f"workdir={str(workdir)!r}: another process is training there")
        mark = secrets.token_hex(8)
        lock.truncate(0)
        lock.write(mark)
        lock.flush()
        yield mark


@contextlib.contextmanager
def turn(path: Path, waiting: str) -> Iterator[None]:
    """Lets one process at a time into its block; the others wait, and print `waiting`.

    On a file system that cannot lock files all are let in.

    Args:
      path: a file that is made for this and removed afterwards.
      waiting: a line for the user.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("a")
        except FileNotFoundError:  # Who failed to prepare it has removed the folder, too.
            continue
        with lock:
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(waiting, flush=True)
                    fcntl.flock(lock, fcntl.LOCK_EX)
            # The process that was waited for has removed the file, and a third may have made one.
            is_the_one = False
            with contextlib.suppress(OSError):
                is_the_one = os.path.samestat(os.fstat(lock.fileno()), path.stat())
            if is_the_one:
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def check(workdir: Path, mark: str, patience: float = 10.0) -> None:
    """Raises `InputError` if this folder is not the one that was claimed with a mark.

    Args:
      workdir: the folder under the name that it has here.
      mark: of the claim.
      patience: seconds that a network's file system may take to show what another host has written.
    """
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            if (workdir / ".lock").read_text(encoding="utf-8") == mark:
                return
        if time.monotonic() > deadline:
            raise InputError(
                f"workdir={str(workdir)!r}: not the folder in which process 0 trains; all "
                "processes need a folder that their hosts share, under the same name"
            )
        time.sleep(0.1)


def is_claimed(workdir: Path) -> bool:
    """Whether a process holds the folder's claim at this moment; raises `InputError` as `claim`."""
    try:
        lock = (workdir / ".lock").open()
    except FileNotFoundError:
        return False
    with lock:
        return not _gets(lock, fcntl.LOCK_SH, workdir)


def _gets(lock: IO[str], kind: int, workdir: Path) -> bool:
    """Whether this process gets a lock; raises `InputError` where there is no such thing."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"workdir={str(workdir)!r}: its file system cannot lock files ({error.strerror}); "
            "choose a folder on another one, or mount it with locks (Lustre: -o flock)"
        ) from error
    return True
