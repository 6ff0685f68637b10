"""Asks trained or untrained nets why depth hurts, and writes what was found.

    python -m experiments.analyze --study=responses --workdir=runs/degradation/plain-20-seed0 \\
        --workdir=runs/degradation/resnet-20-seed0
    python -m experiments.analyze --study=gradients --output=runs/untrained \\
        --config=configs/digits.py:plain-56 --config=configs/digits.py:plain-56,model.norm=none

Writes FOLDER/analysis/STUDY/ with data.csv, figure.svg, figure.png and finding.md, which the report
of FOLDER shows. FOLDER is --output; else the run's folder or, of several runs, their common parent.
A config, file.py:net[,field=value…], is an untrained net with the weights that its seed gives.

    gradients    do they vanish or explode, and the activations? At the start and at the run's
                 checkpoints. variants=True: ReLU, tanh and sigmoid, with and without batch norm
    responses    how strongly the 3×3 layers respond (v1 Figure 7)
    constructed  a deeper net built from a trained one by identity layers: is it as good, and where
                 does it end when trained on, or trained from scratch? depth=56 steps=100
    iterations   does three times the training cure it? Reads runs of one net; trains the longer
                 one if it is not there
    lesions      the error without some of the units, or with some swapped; paths' gradients
    shattering   how alike the gradients of nearby images are, against depth. depths=(8,20,56)
    landscape    the loss around the weights. points=21 reach=1.0
    jacobian     singular values of the input–output Jacobian, against depth
    shortcuts    what passes through shortcuts alone. variants=True: those of v2 Table 1

Options of a study are set with --set=name=value, and finding.md says all their values. Common ones
are `examples` (how many images) and `split` (train or test).
"""

import importlib
import inspect
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from configs import arguments
from experiments import command
from experiments.sweeps import definition
from resnet_jax.errors import InputError, check_choice

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
"""Where in `experiments.studies` the function of each study is."""

_STUDY = flags.DEFINE_string("study", None, ", ".join(STUDIES), required=True)
_WORKDIR = flags.DEFINE_multi_string("workdir", [], "folder of a trained run; may be repeated")
_CONFIG = flags.DEFINE_multi_string("config", [], "file.py:net, untrained; may be repeated")
_OUTPUT = flags.DEFINE_string("output", None, "folder that gets analysis/STUDY/")
_SET = flags.DEFINE_multi_string("set", [], "option=value of the study; may be repeated")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")


def main(argv: list[str]) -> None:
    """Measures, writes the study's folder and prints the finding."""
    del argv
    check_choice("study", _STUDY.value, STUDIES)
    folder = _folder(_WORKDIR.value, _OUTPUT.value)
    configs = [_load_config(text) for text in _CONFIG.value]
    began = time.monotonic()
    # Only now, because loading JAX takes a second or two; then before it computes anything.
    from resnet_jax import parallel

    parallel.use_cores_as_devices()
    from experiments.studies import subjects
    from experiments.studies.progress import Tracker
    from resnet_jax.reporting.studies.write import write_study

    module = importlib.import_module(f"experiments.studies.{STUDIES[_STUDY.value]}")
    measure = getattr(module, _STUDY.value)
    options = _options(measure, _SET.value)
    found = subjects.collect(_WORKDIR.value, configs, _DATA_DIR.value)
    with Tracker(folder) as tracker:
        rows = measure(found, tracker, **options)
    presentation = importlib.import_module(f"resnet_jax.reporting.studies.{_STUDY.value}")
    written = folder / "analysis" / _STUDY.value
    print(write_study(written, presentation, rows, _about(options)))
    print(f"{written} ({time.monotonic() - began:.0f} s)")


def _folder(workdirs: list[str], output: str | None) -> Path:
    if output:
        return Path(output)
    if not workdirs:
        raise InputError("output: untrained nets have no folder; give --output=FOLDER")
    if len(workdirs) == 1:
        return Path(workdirs[0])
    return Path(os.path.commonpath([Path(workdir).absolute().parent for workdir in workdirs]))


def _load_config(text: str) -> Any:
    path, _, argument = text.partition(":")
    return definition.load_config_file("config", path)(argument or None)


def _options(measure: Callable, texts: list[str]) -> dict[str, Any]:
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


def _about(options: dict[str, Any]) -> list[str]:
    """How it was measured: every option, the command, and what it ran on."""
    import jax

    values = ", ".join(f"{name} {value}" for name, value in options.items())
    line = shlex.join(["python", "-m", "experiments.analyze", *sys.argv[1:]])
    device = jax.devices()[0]
    machine = f"{device.device_kind}, JAX {jax.__version__}, Python {platform.python_version()}"
    return [f"Measured with {values}.", f"`{line}` ({machine})"]


if __name__ == "__main__":
    command.run(main)
