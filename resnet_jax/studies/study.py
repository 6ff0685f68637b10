"""One study from its name to its folder."""

import contextlib
import importlib
import inspect
import os
import platform
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.errors import InputError, check_choice
from resnet_jax.runs import arguments
from resnet_jax.sweeps import grid

STUDIES = {
    "gradients": "measures",
    "responses": "measures",
    "constructed": "trainings",
    "iterations": "trainings",
    "lesions": "measures",
    "shattering": "measures",
    "landscape": "measures",
    "jacobian": "measures",
    "shortcuts": "measures",
}
"""Which module beside this one has the function of each study."""


def study(
    name: str,
    workdirs: Sequence[str] = (),
    configs: Sequence[str] = (),
    output: str | None = None,
    settings: Sequence[str] = (),
    data_dir: str | None = None,
    argv: Sequence[str] = (),
) -> tuple[Path, str]:
    """Measures, and writes the study's folder.

    Args:
      name: a key of `STUDIES`.
      workdirs: folders of trained runs.
      configs: untrained nets, each "file.py:net[,field=value…]".
      output: the folder that gets analysis/NAME; None for the run's, or the runs' common parent.
      settings: "option=value" of the study.
      data_dir: where the data set is now.
      argv: arguments of the command, which the finding repeats.

    Returns:
      The study's folder and its finding.

    Raises:
      InputError: anything of this is wrong.
    """
    check_choice("study", name, STUDIES)
    folder = _folder(workdirs, output)
    untrained = [_load_config(text) for text in configs]
    # Only now, because loading JAX takes a second or two; then before it computes anything.
    _prepare(name, workdirs, untrained)
    from resnet_jax.reporting.studies.write import write_study
    from resnet_jax.studies import networks
    from resnet_jax.studies.progress import Tracker

    module = importlib.import_module(f"experiments.studies.{STUDIES[name]}")
    measure = getattr(module, name)
    options = _options(measure, settings)
    found = networks.collect(workdirs, untrained, data_dir)
    with Tracker(folder) as tracker, _precision(name):
        rows = measure(found, tracker, **options)
    presentation = importlib.import_module(f"resnet_jax.reporting.studies.{name}")
    written = folder / "analysis" / name
    return written, write_study(written, presentation, rows, _about(options, argv))


def _prepare(name: str, workdirs: Sequence[str], untrained: Sequence[Any]) -> None:
    """Sets JAX up; for a study that trains, as the configs have it."""
    from resnet_jax.runs import Recipe, load_recipe
    from resnet_jax.runtime import setup

    if STUDIES[name] == "trainings":
        configs = [*map(load_recipe, map(Path, workdirs)), *map(Recipe.from_config, untrained)]
        wanted = lambda field: any(getattr(config, field) for config in configs)
        setup.prepare(deterministic=wanted("deterministic"), onednn=wanted("onednn"))
    else:
        setup.prepare()


def _precision(name: str) -> contextlib.AbstractContextManager:
    """For studies that only measure: products of 32 bits on accelerators too.

    Else what is measured there may be rounding.
    """
    import jax

    if STUDIES[name] == "trainings":
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def _folder(workdirs: Sequence[str], output: str | None) -> Path:
    if output:
        return Path(output)
    if not workdirs:
        raise InputError("output: untrained nets have no folder; give --output=FOLDER")
    if len(workdirs) == 1:
        return Path(workdirs[0])
    return Path(os.path.commonpath([Path(workdir).absolute().parent for workdir in workdirs]))


def _load_config(text: str) -> Any:
    path, _, argument = text.partition(":")
    return grid.load_config_file("config", path)(argument or None)


def _options(measure: Callable, texts: Sequence[str]) -> dict[str, Any]:
    """The study's options: its defaults, and what --set says instead."""
    parameters = inspect.signature(measure).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"set={text!r}: expected option=value")
        check_choice("set", name, options)
        given, default = arguments.parse_value(value), options[name]
        if isinstance(default, tuple) and isinstance(given, int | float):
            given = (given,)
        if isinstance(default, float) and type(given) is int:
            given = float(given)
        if type(given) is not type(default):
            raise InputError(f"set={text!r}: {name} is a {type(default).__name__}, as {default!r}")
        if type(given) is int and given < 0:
            raise InputError(f"set={text!r}: must not be negative")
        options[name] = given
    return options


def _about(options: dict[str, Any], argv: Sequence[str]) -> list[str]:
    """How it was measured: every option, the command, and what it ran on."""
    import jax

    values = ", ".join(f"{name} {value}" for name, value in options.items())
    line = shlex.join(["python", "-m", "experiments.analyze", *argv])
    device = jax.devices()[0]
    machine = f"{device.device_kind}, JAX {jax.__version__}, Python {platform.python_version()}"
    return [f"Measured with {values}.", f"`{line}` ({machine})"]
