"""Several seeds of one network on one device, in one program: which way is the fastest?

    python -m benchmarks.several_seeds --model=resnet-20 --seeds=4 --output=runs/seeds

Times a training step of so many seeds by `jax.vmap`, whose grouped convolutions have slow
gradients (JAX issue 26568), by `jax.lax.map`, one seed after the other in a loop, and unrolled;
and of one seed alone. Concurrent processes are the other way: `experiments.sweep --workers=4`.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from configs import cifar10
from experiments import command
from resnet_jax.runs import Recipe, write_json
from resnet_jax.runtime import setup
from resnet_jax.training import step, trainer

_MODEL = flags.DEFINE_string("model", "resnet-20", "a CIFAR network")
_SEEDS = flags.DEFINE_integer("seeds", 4, "at once", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "images a step and seed", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 10, "steps that are timed", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "folder for seeds.json")


def main() -> None:
    """Prints images a second over all seeds, way by way."""
    config = cifar10.get_config(_MODEL.value)
    config.batch_size, config.num_devices = _BATCH_SIZE.value, 1
    config.model.bn_group_size = min(config.model.bn_group_size, _BATCH_SIZE.value)
    recipe = Recipe.from_config(config)
    setup.prepare(deterministic=recipe.deterministic, onednn=recipe.onednn)
    experiment = trainer.with_random_data(recipe, (32, 32, 3), 10, recipe.batch_size)
    train_step = step.make_train_step(experiment.model, experiment.optimizer, experiment.schedule)
    data = experiment.splits["train"].on_devices
    one = (experiment.initial_state(), data.plain(jnp.arange(recipe.batch_size)), jax.random.key(0))
    several = jax.tree.map(lambda leaf: jnp.stack([leaf] * _SEEDS.value), one)
    unstacked = lambda number, tree: jax.tree.map(lambda leaf: leaf[number], tree)
    ways = {
        "one seed alone": train_step,
        "vmap": jax.vmap(train_step),
        "lax.map": lambda *args: jax.lax.map(lambda each: train_step(*each), args),
        "unrolled": lambda *args: [train_step(*unstacked(n, args)) for n in range(_SEEDS.value)],
    }
    found = {}
    for name, function in ways.items():
        arguments, seeds = (one, 1) if function is train_step else (several, _SEEDS.value)
        compile_seconds, seconds = _time(function, arguments)
        rate = seeds * recipe.batch_size / seconds
        found[name] = {"images_per_second": rate, "compile_seconds": compile_seconds}
        print(f"{name:<16} {rate:8,.0f} images/s, compiled in {compile_seconds:.1f} s", flush=True)
    if _OUTPUT.value:
        record = {"model": recipe.model.name, "seeds": _SEEDS.value, "found": found}
        write_json(Path(_OUTPUT.value) / "seeds.json", record)


def _time(function: Any, arguments: Any) -> tuple[float, float]:
    """Seconds to compile, and of a step, the median."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    compiled = time.perf_counter() - began
    seconds = []
    for _ in range(1 + _REPEATS.value):
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - began)
    return compiled, statistics.median(seconds[1:])


if __name__ == "__main__":
    command.run(main)
