"""The part of `--config=configs/cifar10.py:resnet-56,seed=3` that follows the colon."""

import ast
import difflib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.errors import InputError


def split(argument: str | None, default_model: str) -> tuple[str, dict[str, Any]]:
    """The model's name and the fields set by "model-name[,key=value…]"; both are optional."""
    name, fields = default_model, {}
    for position, part in enumerate(filter(None, (argument or "").split(","))):
        key, equals, value = part.partition("=")
        if equals:
            fields[key.strip()] = parse_value(value.strip())
        elif position == 0:
            name = part
        else:
            raise InputError(f"config argument {part!r}: expected key=value after the model's name")
    return name, fields


def update(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """Sets fields such as "seed" or "schedule.learning_rate" in place, and returns the config.

    Raises:
      InputError: there is no such field, or the value is of another type.
    """
    for path, value in fields.items():
        check_field(config, path)
        section, _, key = path.rpartition(".")
        part = config[section] if section else config
        try:
            part[key] = value
        except TypeError as error:
            wanted = part.get_type(key).__name__
            raise InputError(f"config field {path}={value!r}: must be of type {wanted}") from error
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
    hint = f"; nearest: {nearest}" if nearest else ""
    raise InputError(f"no config field {path!r}: {place} {', '.join(sorted(names))}{hint}")


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


def parse_value(text: str) -> Any:
    """A Python literal's value; other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
