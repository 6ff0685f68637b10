r"""How fast this project trains here: speed, memory, compile time, share of the machine's rate.

    python -m experiments.benchmark --models=resnet-20,resnet-56,resnet-110 --batch_size=128
    python -m experiments.benchmark --sweep=depth --output=runs/cost

It times the step that `experiments.train` makes, with augmentation, optimiser and metrics, on
random images that stay on the devices, of `--image_size` and `--num_classes`. Each network is
measured in a process of its own, and started once more to see what the compilation cache saves.
`--sweep=depth` draws cost against depth, of --models or of 20 to 1202 layers. Beside other
programs: `python -m benchmarks.compare`, and of input pipelines `python -m benchmarks.pipeline`.
The former has `deterministic` off; so has this one with `--set=deterministic=False`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from resnet_jax.data import datasets
from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.reporting import cost
from resnet_jax.runs import Recipe, arguments, write_json
from resnet_jax.studies import tables
from resnet_jax.sweeps.grid import load_config_file

DEPTHS = (20, 32, 56, 110, 218, 434, 1202)

_MODELS = flags.DEFINE_list("models", None, "names of networks; default resnet-20, -56 and -110")
_CONFIG = flags.DEFINE_string("config", "configs/cifar10.py", "the file that gives their recipe")
_SET = flags.DEFINE_multi_string("set", [], "field=value of the config; may be repeated")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images a step; default the config's", lower_bound=1
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "pixels a side; default the config's, or its data set's", lower_bound=1
)
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "classes", lower_bound=2)
_REPEATS = flags.DEFINE_integer("repeats", 5, "of which the median is told", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 3.0, "of one repeat, at least", lower_bound=0.0)
_SWEEP = flags.DEFINE_enum("sweep", None, ["depth"], "draw cost against depth; needs --output")
_OUTPUT = flags.DEFINE_string("output", None, "folder for benchmark.json and a figure")


def main() -> None:
    """Measures network after network, prints a table and writes what --output asks for."""
    if _SWEEP.value and not _OUTPUT.value:
        raise InputError("output=None: --sweep draws a figure; name the folder for it")
    models = _MODELS.value
    if models is None:
        models = [f"resnet-{depth}" for depth in (DEPTHS if _SWEEP.value else (20, 56, 110))]
    for model in models or [""]:
        zoo.describe(model)
    found = []
    for model in models:
        found.append(_measure(model))
        print(_line(found[-1]), flush=True)
        if _OUTPUT.value:
            write_json(Path(_OUTPUT.value) / "benchmark.json", found)
    _show(found)
    if _SWEEP.value and _OUTPUT.value:
        about = [f"Command: python -m experiments.benchmark {' '.join(sys.argv[1:])}"]
        costs, folder = cost.table(found), Path(_OUTPUT.value)
        tables.write_data(folder, costs)
        print(tables.write(folder, cost.panels(costs), cost.summarize(costs), about))


def _measure(model: str) -> dict[str, Any]:
    config = load_config_file("config", _CONFIG.value)(model)
    arguments.update(config, dict(_field(text) for text in _SET.value))
    if _BATCH_SIZE.value:
        config.batch_size = _BATCH_SIZE.value
    recipe = Recipe.from_config(config)
    asked = {
        "recipe": recipe.to_dict(),
        "image_shape": _image_shape(recipe),
        "num_classes": _NUM_CLASSES.value,
        "num_examples": 8 * recipe.batch_size,
        "repeats": _REPEATS.value,
        "seconds": _SECONDS.value,
    }
    with tempfile.TemporaryDirectory() as cache:
        found = _in_a_process(model, asked, cache)
        again = _in_a_process(model, {**asked, "start_only": True}, cache)
    again_seconds = {"cached_compile_seconds": again["compile_seconds"]}
    return {"batch_size": recipe.batch_size, **asked, **found, **again_seconds}


def _image_shape(recipe: Recipe) -> list[int]:
    """Height, width and channels: as asked for, as configured, or as the data set has them."""
    dataset = recipe.dataset
    side = _IMAGE_SIZE.value or dataset.image_size
    if side:
        return [side, side, 3]
    shape = datasets.describe(dataset.name, data_dir=dataset.data_dir, image_size=None).image_shape
    if shape is None:
        raise InputError(
            f"image_size=None: images of {dataset.name} vary in size; give --image_size"
        )
    return list(shape)


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"set={text!r}: expected field=value")
    return name, arguments.parse_value(value)


def _in_a_process(model: str, asked: dict[str, Any], cache: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "resnet_jax.training.speed", json.dumps(asked)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        told = last.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
        raise InputError(f"{model}: {told}")
    return json.loads(done.stdout.splitlines()[-1])


def _line(found: dict[str, Any]) -> str:
    rate = statistics.median(found["train_images_per_second"])
    return f"{found['model']}: {rate:,.0f} images/s"


def _show(found: Sequence[dict[str, Any]]) -> None:
    first = found[0]
    height, width, _ = first["image_shape"]
    table = Table("", box=None, pad_edge=False)
    for title in (
        *("training, images/s", "from … to", "evaluation, images/s", "of matmul rate"),
        *("program, MB", "peak, MB", "init, s", "compile, s", "cached, s"),
    ):
        table.add_column(title, justify="right")
    for one in found:
        rates = one["train_images_per_second"]
        rate = statistics.median(rates)
        peak = one["device_peak_bytes"] or one["process_peak_bytes"]
        table.add_row(
            one["model"],
            f"{rate:,.0f}",
            f"{min(rates):,.0f} … {max(rates):,.0f}",
            f"{statistics.median(one['evaluate_images_per_second']):,.0f}",
            f"{rate * one['flops_per_image'] / one['matmul_flops_per_second']:.0%}",
            f"{one['program_bytes'] / 1e6:,.0f}",
            f"{peak / 1e6:,.0f}",
            f"{one['init_seconds']:.1f}",
            f"{one['trace_seconds'] + one['compile_seconds']:.1f}",
            f"{one['trace_seconds'] + one['cached_compile_seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(
        f"batch {first['batch_size']} of {width}×{height} images on {first['devices']} of "
        f"{first['machine']}, "
        f"JAX {first['versions']['jax']}, deterministic={first['deterministic']}; here a matrix "
        f"product runs at {first['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s, a copy at "
        f"{first['copy_bytes_per_second'] / 1e9:,.1f} GB/s. Compilation includes tracing; where "
        "the cached time is no shorter, nothing could be cached (see docs/performance.md)."
    )


if __name__ == "__main__":
    command.run(main)
