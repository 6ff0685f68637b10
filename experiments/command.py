"""How every command starts and how it ends when its user made a mistake."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from resnet_jax.errors import InputError

# Exit codes, beside 0 and Python's 1 for a bug.
WRONG_INPUT = 2
STOPPED = 75  # Asked to stop and saved: the same command goes on. (EX_TEMPFAIL of sysexits.h.)


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses flags and runs `main`; a user's mistake is one line on stderr and exit code 2."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells much.
    app.run(_without_traceback(main), flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        positional = flags.FLAGS(argv)
    # ml_collections reports misspelt fields and wrong values with these.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _fail(error)
    if len(positional) > 1:
        _fail(f"unexpected argument {positional[1]!r}; values are given as --flag=value")
    return positional


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
