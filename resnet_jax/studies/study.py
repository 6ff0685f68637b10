"""A study, and the way of one from its name to its folder."""

import contextlib
import importlib
import inspect
import os
import pkgutil
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import resnet_jax.studies
from resnet_jax.errors import InputError, check_choice
from resnet_jax.runs import Recipe, arguments
from resnet_jax.studies import networks, tables

Track = Callable[[Iterable[Any]], Iterable[Any]]

_SECONDS_BETWEEN_LINES = 20


def names() -> list[str]:
    """Of all studies: the modules of this package that have a `measure`."""
    found = (module.name for module in pkgutil.iter_modules(resnet_jax.studies.__path__))
    return sorted(name for name in found if hasattr(_module(name), "measure"))


def find(name: str) -> ModuleType:
    """A study by its name: the module that takes one question from networks to sentences.

    Its `measure(networks, tracker, **options)` gives a table whose rows have the columns of
    `Network.about` and what was measured; the keyword-only parameters are the study's options. Of
    that table alone `plot` gives the figure's panels, row by row, and `summarize` what was found,
    in sentences. It has `TRAINS` if it trains networks, which then are computed as their recipes
    say.

    Raises:
      InputError: there is none of that name.
    """
    check_choice("study", name, names())
    return _module(name)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{resnet_jax.studies.__name__}.{name}")


def run(
    name: str,
    workdirs: Sequence[str] = (),
    recipes: Sequence[Recipe] = (),
    output: str | None = None,
    settings: Sequence[str] = (),
    data_dir: str | None = None,
    untrained: bool = False,
    argv: Sequence[str] = (),
) -> tuple[Path, str]:
    """Measures, and writes the study's folder.

    Args:
      name: of the study.
      workdirs: folders of trained runs.
      recipes: of untrained networks.
      output: the folder that gets analysis/NAME; None for the run's, or the runs' common parent.
      settings: "option=value" of the study.
      data_dir: where the data set is now.
      untrained: ask the runs' networks as they were before training.
      argv: arguments of the command, which the finding repeats.

    Returns:
      The study's folder and its finding.

    Raises:
      InputError: anything of this is wrong.
    """
    study = find(name)
    options = parse_options(study.measure, settings)
    folder = _folder(workdirs, output)
    asked = networks.collect(workdirs, recipes, data_dir, untrained)
    # Products of 32 bits on accelerators too: else what is measured there may be rounding.
    highest = jax.default_matmul_precision("highest")
    precision = contextlib.nullcontext() if hasattr(study, "TRAINS") else highest
    with Tracker(folder) as tracker, precision:
        table = study.measure(asked, tracker, **options)
    written = folder / "analysis" / name
    tables.write_data(written, table)  # First: it is what took the time.
    panels, sentences = study.plot(table), study.summarize(table)
    return written, tables.write(written, panels, sentences, _about(options, argv))


def parse_options(measure: Callable[..., Any], texts: Sequence[str]) -> dict[str, Any]:
    """The study's options: the defaults of `measure`, and what "option=value" says instead.

    Raises:
      InputError: there is no such option, or its value is of another type.
    """
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


def _folder(workdirs: Sequence[str], output: str | None) -> Path:
    if output:
        return Path(output)
    if not workdirs:
        raise InputError("output: untrained networks have no folder; give --output=FOLDER")
    if len(workdirs) == 1:
        return Path(workdirs[0])
    return Path(os.path.commonpath([Path(workdir).absolute().parent for workdir in workdirs]))


def _about(options: dict[str, Any], argv: Sequence[str]) -> list[str]:
    """How it was measured: every option, the command, and what it ran on."""
    values = ", ".join(f"{name} {value}" for name, value in options.items())
    line = shlex.join(["python", "-m", "experiments.analyze", *argv])
    device = jax.devices()[0]
    machine = f"{device.device_kind}, JAX {jax.__version__}, Python {platform.python_version()}"
    return [f"Measured with {values}.", f"`{line}` ({machine})"]


class Tracker(Progress):
    """Tells how far a study is: a live bar on a terminal, a line now and then elsewhere.

    Attributes:
      folder: the study's, for what it trains.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        super().__init__(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not sys.stdout.isatty(),
        )

    def __call__(self, title: str) -> Track:
        """A tracker of one loop: `for item in tracker("plain-20")(items)`."""
        return lambda items: self._loop(title, list(items))

    def _loop(self, title: str, items: list[Any]) -> Iterator[Any]:
        told = time.monotonic()
        for number, item in enumerate(self.track(items, description=title), start=1):
            yield item
            if self.disable and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                line = f"{title}: {number} of {len(items)}"
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)
