"""How networks and settings are named, ordered and recognised."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.architecture import Architecture
from resnet_jax.runs import recipe

FAMILIES = ("plain", "residual", "pre-activation", "other")
"""In the order in which they are shown."""

_AXES = {field.name for field in dataclasses.fields(Architecture)}


def natural(text: str) -> tuple:
    """Sort key by which "plain-20" comes before "plain-110", and 0.25 before 0.5.

    >>> sorted(["plain-110", "plain-20", "scale=0.5", "scale=0.25"], key=natural)
    ['plain-20', 'plain-110', 'scale=0.25', 'scale=0.5']
    """
    pieces = re.split(r"(\d+(?:\.\d+)?)", str(text))
    return tuple((0, float(p), "") if p[:1].isdecimal() else (1, 0.0, p) for p in pieces)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as one level with dotted names.

    >>> flatten({"model": {"name": "plain-20"}, "seed": 0})
    {'model.name': 'plain-20', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def architecture(settings: Mapping[str, Any]) -> Architecture | None:
    """What the flat config's `model.*` fields build, or None if the zoo knows no such network.

    `bn_group_size` is left out: it belongs to the recipe, and two networks that differ in it have
    the same layers.
    """
    axes = {
        name: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
        if (name := key.removeprefix("model.")) in _AXES - {"bn_group_size"}
        and key.startswith("model.")
        and value is not None
    }
    try:
        return zoo.describe(str(settings.get("model.name")), **axes)
    except (InputError, TypeError):  # A name or value from elsewhere is shown, not refused.
        return None


def usual_name(model: str) -> str:
    """A network's shorter name, if it has two: "cifar-" is for depths that ImageNet has, too.

    >>> usual_name("cifar-plain-56"), usual_name("cifar-resnet-50")
    ('plain-56', 'cifar-resnet-50')
    """
    short = model.removeprefix("cifar-")
    net = architecture({"model.name": short})
    return short if net is not None and net == architecture({"model.name": model}) else model


def is_of_recipe(field: str) -> bool:
    """Whether networks that differ in a flat config's field can have the same layers."""
    return not field.startswith("model.") or field in ("model.bn_group_size", "model.dtype")


def family_and_depth(model: str, net: Architecture | None) -> tuple[str, int | None]:
    """One of `FAMILIES` and the number of weighted layers (None if the name has none)."""
    if net is not None:
        if net.shortcut == "none":
            return "plain", net.depth
        return "pre-activation" if net.order == "full_preact" else "residual", net.depth
    digits = re.search(r"-(\d+)", model)
    return "other", int(digits[1]) if digits else None


def differing(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields in which flat configs that use them differ, sorted; an absent one counts as None.

    >>> differing([{"schedule.warmup": "none"},
    ...            {"schedule.warmup": "linear", "schedule.warmup_steps": 40}])
    ['schedule.warmup']
    """
    configs = list(configs)
    keys = sorted({key for config in configs for key in config})
    values = lambda key: {as_text(own.get(key)) for own in configs if recipe.is_used(key, own)}
    return [key for key in keys if len(values(key)) > 1]


def unusual(configs: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> list[list[str]]:
    """Of each flat config those fields, of `keys`, whose value at most half of all have.

    They tell the configs apart in a label, which shows no None: so where some have None, all
    others' values count as unusual.

    >>> unusual([{"lr": 0.1}, {"lr": 0.1}, {"lr": 0.3}], ["lr"])
    [[], [], ['lr']]
    """
    configs, keys = list(configs), list(keys)
    told: list[list[str]] = [[] for _ in configs]
    for key in keys:
        values = [as_text(config.get(key)) for config in configs]
        some_default = as_text(None) in values
        for fields, value in zip(told, values, strict=True):
            if some_default or 2 * values.count(value) <= len(values):
                fields.append(key)
    return told


def describe_settings(settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Settings for a label, each by the last part of its name.

    >>> describe_settings({"model.order": "full_preact", "schedule.name": "cosine"},
    ...                   ["model.order", "schedule.name"])
    'order=full_preact, schedule=cosine'
    """
    keys = [key for key in keys if settings.get(key) is not None]  # None: what the name stands for
    short = [key.removesuffix(".name").rsplit(".", 1)[-1] for key in keys]
    return ", ".join(
        f"{name if short.count(name) == 1 else key}={as_text(settings.get(key))}"
        for key, name in zip(keys, short, strict=True)
    )


def as_text(value: Any) -> str:
    """One text for one value, whatever the order of a dictionary's keys.

    None is what the network's name stands for: not the "none" that a field may be set to.
    """
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
