"""The part of `--config=configs/cifar10.py:resnet-56,seed=3` that follows the colon."""

import ast
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.errors import InputError, check_choice


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
        *sections, key = path.split(".")
        part = config
        for name in sections:
            check_choice("config section", name, _sections(part))
            part = part[name]
        check_choice("config field", key, sorted(part))
        try:
            part[key] = value
        except TypeError as error:
            raise InputError(f"config field {path}={value!r}: {error}") from error
    return config


def _sections(config: ConfigDict) -> list[str]:
    return [key for key, value in config.items() if isinstance(value, ConfigDict)]


def parse_value(text: str) -> Any:
    """A Python literal's value; other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
