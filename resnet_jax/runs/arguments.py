"""The part of `--config=configs/cifar10.py:resnet-56,seed=3` that follows the colon."""

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.errors import InputError

ALIASES = {"lr": "schedule.learning_rate", "steps": "num_steps", "batch": "batch_size"}
"""Short names of what everyone sets."""

_QUOTED = r"'[^']*'|\"[^\"]*\""
_PARTS = re.compile(rf"(?:{_QUOTED}|\([^()]*\)|\[[^\[\]]*\]|[^,])+")
"""What stands between commas; those in quotes and brackets separate nothing."""


def split(argument: str | None, default_model: str) -> tuple[str, dict[str, Any]]:
    """The model's name and the fields set by "model-name[,key=value…]"; both are optional.

    A comma belongs to a value if no `key=` follows it: `data_dir=/data/cats,dogs`. So it does
    between brackets and quotes: `schedule.boundaries=(0.3,0.6)`. Of a field that is given twice the
    last value counts.

    Raises:
      InputError: a part has no key, or a field is given under two names.
    """
    name, texts = take_apart(argument or "")
    keys = {key for key, _ in texts}
    for short, path in ALIASES.items():
        if {short, path} <= keys:
            raise InputError(f"config field {path!r}: given under two names, {short} is the other")
    return name or default_model, {ALIASES.get(key, key): parse_value(text) for key, text in texts}


def take_apart(argument: str) -> tuple[str, list[tuple[str, str]]]:
    """What `split` reads, as it is written: the model's name or "", each field's key and text.

    Raises `InputError` for a part without a key that does not come first.
    """
    name, texts = "", []
    for position, part in enumerate(_PARTS.findall(argument)):
        key, equals, value = part.partition("=")
        if equals and key.strip():
            texts.append((key.strip(), value.strip()))
        elif position == 0:
            name = part
        elif texts:
            texts[-1] = (texts[-1][0], f"{texts[-1][1]},{part}")
        else:
            raise InputError(f"config argument {part!r}: expected key=value after the model's name")
    return name, texts


_WANTED = {
    int: "a whole number, such as 1000",
    float: "a number, such as 0.1",
    bool: "true or false",
    str: "text",
    tuple: "a list, such as (0.5,0.75)",
}


def update(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """Sets fields such as "seed" or "schedule.learning_rate" in place, and returns the config.

    Raises:
      InputError: there is no such field, or the value is of another type.
    """
    for path, value in fields.items():
        check_field(config, path)
        section, _, key = path.rpartition(".")
        part = config[section] if section else config
        if value == "none" and part.get_type(key) is not str:
            value = None
        try:
            part[key] = value
        except (TypeError, ValueError) as error:
            wanted = part.get_type(key)
            wanted = _WANTED.get(wanted, f"of type {wanted.__name__}")
            raise InputError(f"config field {path}={value!r}: must be {wanted}") from error
    return config


def check_field(config: ConfigDict, path: str) -> None:
    """Raises `InputError` if a path such as "schedule.learning_rate" is not that of a field."""
    paths = [*_paths(config)]
    if path in paths:
        return
    inside = [other for other in paths if other.startswith(f"{path}.")]
    if inside:
        raise InputError(f"config field {path!r} is a section; set its fields: {', '.join(inside)}")
    section = path.rpartition(".")[0]
    beside = [other for other in paths if other.rpartition(".")[0] == section]
    place = f"allowed in {section} are" if beside and section else "allowed are"
    names = config[section] if beside and section else config
    nearest = _nearest(path, beside, paths)
    hint = f" (nearest: {nearest})" if nearest else ""
    raise InputError(f"no config field {path!r}{hint}; {place} {', '.join(sorted(names))}")


def _paths(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in sorted(config.items()):
        if isinstance(value, ConfigDict):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _nearest(path: str, beside: list[str], paths: list[str]) -> str | None:
    """The field that is probably meant: one of that section, or else one of any."""
    for others in (beside, paths):
        aliases = _aliases(others)
        for close in difflib.get_close_matches(path.rpartition(".")[2], aliases, n=1):
            return aliases[close]
    return next(iter([] if beside else difflib.get_close_matches(path, paths, n=1)), None)


def _aliases(paths: list[str]) -> dict[str, str]:
    """Fields by their names and initials, such as "learning_rate" and "lr"; none that two share."""
    called: dict[str, set[str]] = {}
    for path in paths:
        name = path.rpartition(".")[2]
        initials = "".join(word[0] for word in name.split("_"))
        for alias in {name, initials if len(initials) > 1 else name}:
            called.setdefault(alias, set()).add(path)
    return {alias: others.pop() for alias, others in called.items() if len(others) == 1}


def expand_home(text: str) -> str:
    """A path whose "~" is expanded; other text is itself.

    Raises:
      InputError: "~name" of nobody who has a home directory.
    """
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise InputError(f"{text!r}: there is no such user's home directory") from error


def parse_value(text: str) -> Any:
    """A Python literal's value; "true" and "false" are booleans, other text is itself."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    # The last two: of brackets that are nested too deep.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
