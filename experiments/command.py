"""How every command starts and how it ends when its user made a mistake."""

import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from resnet_jax.errors import InputError

# Exit codes, beside 0 and Python's 1 for a bug.
WRONG_INPUT = 2
STOPPED = 75  # Asked to stop and saved: the same command goes on. (EX_TEMPFAIL of sysexits.h.)


def run(
    main: Callable[[list[str]], int | None], wrong_flags: Callable[[str], None] | None = None
) -> None:
    """Parses flags and runs `main`; a user's mistake is one line on stderr and exit code 2.

    Args:
      main: takes the positional arguments, and returns the exit code.
      wrong_flags: is told of a mistake in the flags, before the process ends.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells much.

    def parse(argv: list[str]) -> list[str]:
        try:
            return _parse_flags(argv)
        except InputError as error:
            if wrong_flags:
                wrong_flags(str(error))
            _fail(error)

    app.run(_without_traceback(main), flags_parser=parse)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        positional = flags.FLAGS(argv)
        for value in flags.FLAGS.flag_values_dict().values():
            hasattr(value, "items")  # A config file that is missing shows only when it is used.
    # ml_collections reports misspelt fields and wrong values with these.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(_mistake(error)) from error
    if len(positional) > 1:
        raise InputError(f"unexpected argument {positional[1]!r}; values are given as --flag=value")
    return positional


def _mistake(error: BaseException) -> str:
    """What the user should read of an error in parsing flags."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)  # Raised by a config file; ml_collections wraps it in a traceback.
        cause = cause.__cause__ or cause.__context__
    missing = re.search(r"No such file or directory: '(.+?)'", str(error))
    if missing:
        path = Path(missing[1])
        nearest = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        hint = f"; nearest: {path.with_name(nearest[0])}" if nearest else ""
        return f"{path}: no such file{hint}"
    if isinstance(error, AttributeError) and isinstance(error.args[0], KeyError):
        return f"no config field {error.args[0].args[0]}"
    return str(error)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _without_traceback(
    main: Callable[[list[str]], int | None],
) -> Callable[[list[str]], int | None]:
    def wrapped(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except InputError as error:
            _fail(error)

    return wrapped


def _fail(error: object) -> None:
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(WRONG_INPUT)
