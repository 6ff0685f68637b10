"""Mistakes that a user can mend, told in one line."""

import difflib
from collections.abc import Iterable
from typing import Any


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
    nearest = difflib.get_close_matches(str(value), map(str, allowed), n=1)
    hint = f"; nearest: {nearest[0]}" if nearest else ""
    raise InputError(f"{field}={value!r}: allowed are {', '.join(map(str, allowed))}{hint}")
