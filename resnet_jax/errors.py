"""User errors: what they are called, how they read in one line, and how a command then exits."""

import difflib
import errno
import io
import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

# Exit codes of the commands, beside 0 and Python's 1 for a bug.
WRONG_INPUT = 2
STOPPED = 75
"""Asked to stop and saved: rerun it to resume. (EX_TEMPFAIL of sysexits.h.)"""

# Users' Python files, by what they define.
_FILES = {
    "get_config": "a run's config, for experiments.train",
    "get_sweep": "a sweep, for experiments.sweep",
}


class InputError(ValueError):
    """A config, flag, data set or file that is wrong; the message says what to do.

    Commands print the message as one line and exit with code 2. Any other exception is a bug
    and keeps its traceback.
    """


def check_choice(field: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises `InputError` naming the field, the value, what is allowed and what is nearest."""
    allowed = list(allowed)
    if value in allowed:
        return
    names = {str(name).lower(): name for name in allowed}
    nearest = difflib.get_close_matches(str(value).lower(), names, n=1)
    hint = f"; nearest: {names[nearest[0]]}" if nearest else ""
    raise InputError(f"{field}={value!r}: allowed are {', '.join(map(str, allowed))}{hint}")


def mistake_in_file(error: Exception, path: str) -> str:
    """Where in a user's Python file an error was raised, or led to one, and what it says."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames, file = traceback.extract_tb(error.__traceback__), Path(path).resolve()
    own = [frame for frame in frames if Path(frame.filename).resolve() == file]
    where = f"{path}, line {own[-1].lineno}" if own else path
    return f"{where}: {type(error).__name__}: {error}"


def missing_in_file(module: ModuleType, path: str, name: str) -> str:
    """What to say of a user's Python file that does not define a name; is it of the other kind?"""
    kinds = [kind for found, kind in _FILES.items() if name in _FILES and hasattr(module, found)]
    return f"{path}: has no {name}" + (f"; it is {kinds[0]}" if kinds else "")


# A disk that is full or broken stays so, whatever else fails because of it.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
# These are about one file; code that expects and handles them may fail for another reason.
_FILE = {
    *(errno.EACCES, errno.EPERM, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


def storage_failure(error: BaseException | None) -> str | None:
    """One line on a disk that is full, read-only or broken, if that is behind an error; else None.

    The user has to fix this, whatever the code did just then. An error that was raised while
    another one was handled, and not from it, is a bug, unless that other one was the disk's.
    """
    failures = _DISK | _FILE
    while error is not None:
        number = os_error_number(error)
        if number in failures or (number == errno.ENOENT and _is_of_mkdir(error)):
            file = error.filename2 or error.filename if isinstance(error, OSError) else None
            named = re.search(r'local file "([^"]+?)(?:"|\.orbax)', str(error))
            where = os.fsdecode(file) if file else named[1] if named else _file_written(error)
            return f"{where}: {os.strerror(number)}; fix that and rerun the command"
        if error.__cause__ is None:
            failures = _DISK
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _file_written(error: BaseException) -> str:
    """The file that was being written: Python names it in errors of opening alone."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str) and "r" not in getattr(value, "mode", "r"):
                return name
    return "a file to be written"


def _is_of_mkdir(error: BaseException) -> bool:
    """Whether a folder could not be made, which a file system such as /proc says in this way."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name == "mkdir"


def wrong_environment(error: BaseException) -> str | None:
    """One line if JAX takes a variable of the environment amiss, and that is the error; else None.

    JAX_PLATFORMS may ask for a device that is not there, others may have no value of theirs.
    """
    if isinstance(error, ValueError) and "for JAX flag" in str(error):
        return f"{error}; it is set in the environment, in capitals"
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, AssertionError | RuntimeError) or not any(
        frame.filename.endswith("xla_bridge.py") for frame in frames
    ):
        return None
    platforms = os.environ.get("JAX_PLATFORMS")
    asked = f"JAX_PLATFORMS={platforms}: " if platforms else ""
    said = str(error).splitlines()  # Nothing, for "cuda" without a GPU.
    return f"{asked}JAX finds no such device" + (f" ({said[0]})" if said else "")


def os_error_number(error: BaseException) -> int | None:
    """The operating system's number of an error (`errno`), if it is one of its own.

    TensorStore, which reads and writes the checkpoints, says it in the text of errors of other
    types.
    """
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\[(?:OS error |os_error_code=')(\d+)", str(error))
    return int(told[1]) if told else None
