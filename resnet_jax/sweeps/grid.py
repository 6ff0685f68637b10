"""A sweep's file: which config it varies, and how.

A sweep is a Python file of data beside the configs:

    TITLE = "Depth of plain and residual networks"   # for people
    PAPER = "v1 Figure 6"                            # what it repeats, or None
    RECIPE = "paper"                                 # "paper", "shortened" or "other"
    CONFIG = "configs/cifar10.py"                    # the config that it varies
    COMMON = {"schedule.warmup": "constant"}         # optional: what all runs have in common

    def get_sweep(seeds=5):
        for seed in range(seeds):
            for name in ("plain-20", "resnet-20"):
                yield {"model.name": name, "seed": seed}

The order of `get_sweep` is the order in which runs start.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.errors import InputError, check_choice, missing_in_file, mistake_in_file
from resnet_jax.runs import arguments

Overrides = dict[str, Any]
"""Values of config fields by their path, such as "model.name" or "seed"."""

RECIPES = ("paper", "shortened", "other")

MOST_RUNS = 10_000
"""A `get_sweep` that yields more is taken for one that never ends."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep's file as read.

    Attributes:
      name: of the file.
      title, paper, recipe, config, common: see this module's docstring.
      overrides: of each run, less `common`.
      get_config: of the config that the sweep varies.
    """

    name: str
    title: str
    paper: str | None
    recipe: str
    config: str
    common: Overrides
    overrides: tuple[Overrides, ...]
    get_config: Callable[[str], ConfigDict]


def load(path: str, seeds: int | None = None) -> Sweep:
    """Reads a sweep's file and the config that it names.

    Args:
      path: of the file.
      seeds: how many seeds a network; None for as many as the file says.

    Raises:
      InputError: a file is missing, or is not what it should be.
    """
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds={seeds}: must be at least 1")
    # `get_sweep` first: its absence tells what the file is instead.
    names = ("get_sweep", "TITLE", "PAPER", "RECIPE", "CONFIG")
    module = _load_module("config", path, *names)
    get_sweep, title, paper, recipe, config = map(module.__getitem__, names)
    for name in ("TITLE", "CONFIG"):
        if not isinstance(module[name], str):
            raise InputError(f"{path}: {name}={module[name]!r}: expected text")
    check_choice(f"{path}: RECIPE", recipe, RECIPES)
    return Sweep(
        name=Path(path).stem,
        title=title,
        paper=paper,
        recipe=recipe,
        config=config,
        common=_checked(f"{path}: COMMON", module.get("COMMON", {})),
        overrides=_all_overrides(path, get_sweep, seeds),
        get_config=load_config_file(f"{path}: CONFIG", config),
    )


def load_config_file(field: str, path: str) -> Callable[[str | None], ConfigDict]:
    """`get_config` of a config's file; `field` is what an error names.

    Raises:
      InputError: the file is missing, or has no `get_config`. The function that is returned raises
        it for a mistake in there, and for what is no config.
    """
    get_config = _load_module(field, path, "get_config")["get_config"]
    if not callable(get_config):
        raise InputError(f"{path}: get_config is no function")

    def checked(argument: str | None) -> ConfigDict:
        """What `get_config` makes of the argument, or one line on what is wrong with it."""
        try:
            config = get_config() if argument is None else get_config(argument)
        except InputError:
            raise
        except Exception as error:  # of the user's Python
            raise InputError(mistake_in_file(error, path)) from error
        if not isinstance(config, ConfigDict):
            raise InputError(f"{path}: get_config returned {config!r:.80}, not a ConfigDict")
        return config

    return checked


def _all_overrides(path: str, get_sweep: Any, seeds: int | None) -> tuple[Overrides, ...]:
    if not callable(get_sweep):
        raise InputError(f"{path}: get_sweep is no function")
    if seeds is not None and "seeds" not in inspect.signature(get_sweep).parameters:
        raise InputError(f"seeds={seeds}: get_sweep() of {path} has no argument `seeds`")
    try:
        runs = get_sweep() if seeds is None else get_sweep(seeds=seeds)
        if runs is None:
            raise InputError(f"{path}: get_sweep() returns nothing; it should yield each run")
        found = tuple(itertools.islice(runs, MOST_RUNS + 1))
    except InputError:
        raise
    except Exception as error:  # of the user's Python
        raise InputError(mistake_in_file(error, path)) from error
    if len(found) > MOST_RUNS:
        raise InputError(f"{path}: get_sweep() yields over {MOST_RUNS:,} runs; does it ever end?")
    return tuple(_checked(f"{path}: get_sweep()", overrides) for overrides in found)


def _checked(source: str, overrides: Any) -> Overrides:
    """A run's overrides by the fields' own names, if they are fields and values."""
    if not isinstance(overrides, dict) or not all(isinstance(key, str) for key in overrides):
        raise InputError(f"{source}: {overrides!r}: expected a dictionary of fields and values")
    fields: Overrides = overrides
    named: Overrides = {}
    for key, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{source}: {key}={value!r}: must be finite")
        path = arguments.ALIASES.get(key, key)
        if path in named:
            raise InputError(f"{source}: {path} is given twice")
        named[path] = value
    return named


def _load_module(field: str, name: str, *wanted: str) -> dict[str, Any]:
    """What a Python file defines, the wanted names among it."""
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        files = sorted(file.name for file in path.parent.glob("[!_]*.py"))
        there = f"; {path.parent} has {', '.join(files)}" if files else ""
        nearest = difflib.get_close_matches(path.name, files, n=1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise InputError(f"{field}={name!r}: no such Python file{there}{hint}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(mistake_in_file(error, name)) from error
    for attribute in wanted:
        if not hasattr(module, attribute):
            raise InputError(missing_in_file(module, name, attribute))
    return vars(module)
