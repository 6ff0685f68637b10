"""How fast a recipe trains on this machine, and how fast the machine is at the simplest work.

    python -m resnet_jax.training.speed '{"recipe": {…}, "image_shape": [32, 32, 3], …}'

is `measure` in a process of its own, from the compiler on; `experiments.benchmark` starts it.
"""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.runs import Recipe
from resnet_jax.runtime import parallel, setup
from resnet_jax.training import trainer

TRAINING_PASSES = 3  # forward, to the images, to the weights: of the same multiply-adds each
REPEATS = 7  # of a product or a copy


def measure(
    recipe: Recipe,
    image_shape: Sequence[int],
    num_classes: int,
    num_examples: int,
    *,
    repeats: int = 5,
    seconds: float = 3.0,
    start_only: bool = False,
) -> dict[str, Any]:
    """Start-up, memory and speed of a recipe's training step and evaluation, on random images.

    Args:
      recipe: its data set is not read.
      image_shape: (height, width, channels).
      num_classes, num_examples: of the random data; the latter are evaluated.
      repeats: how often each rate is measured.
      seconds: of one repeat, at least.
      start_only: whether to end after the first step.

    Returns:
      Seconds, bytes and images a second: see the keys.
    """
    watch = _Stopwatch()
    num_examples = max(num_examples, recipe.batch_size)
    experiment = trainer.with_random_data(recipe, tuple(image_shape), num_classes, num_examples)
    found: dict[str, Any] = {"model": recipe.model.name, "setup_seconds": watch.lap()}
    state = jax.block_until_ready(experiment.initial_state())
    found["init_seconds"] = watch.lap()
    data, steps = experiment.splits["train"], experiment.intervals().steps_per_call
    run_steps = experiment.make_run_steps()
    lowered = run_steps.lower(state, data, 0, steps)
    found["trace_seconds"] = watch.lap()
    program = lowered.compile()
    found["compile_seconds"] = watch.lap()
    _, whole, inputs = run_steps.arguments(state, data, 0, steps)
    inputs = parallel.device_put_global(inputs, parallel.sharded(experiment.mesh, axis=1))
    state = jax.block_until_ready(program(state, whole, inputs))
    found["first_step_seconds"] = watch.lap()
    if start_only:
        return found

    def train() -> int:
        nonlocal state
        state = jax.block_until_ready(program(state, whole, inputs))
        return steps * recipe.batch_size

    evaluate = experiment.make_evaluate()
    variables = jax.tree.map(jnp.copy, state.variables)
    evaluate(variables, data)  # compiles
    adds = experiment.count().multiply_adds
    return (
        found
        | _memory(program)
        | {
            "train_images_per_second": _rates(train, repeats, seconds),
            "evaluate_images_per_second": _rates(
                lambda: evaluate(variables, data) and len(data), repeats, seconds
            ),
            "depth": recipe.architecture.depth,
            "multiply_adds": adds,
            "flops_per_image": 2 * TRAINING_PASSES * adds,
            "deterministic": recipe.deterministic,
            "machine": describe_machine(),
            "platform": jax.default_backend(),
            "devices": experiment.mesh.size,
            "convolutions": parallel.convolution_kernels(program.as_text()),
            "matmul_flops_per_second": matmul_rate(experiment.mesh, recipe.model.dtype),
            "copy_bytes_per_second": copy_rate(experiment.mesh),
            "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        }
    )


class _Stopwatch:
    def __init__(self):
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last one."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _memory(program) -> dict[str, int | None]:
    """By XLA's account of one device's program; and what the process has had in memory at most."""
    sizes = program.memory_analysis()
    peak = jax.devices()[0].memory_stats() or {}
    return {
        "program_bytes": sizes.temp_size_in_bytes + sizes.argument_size_in_bytes,
        "device_peak_bytes": peak.get("peak_bytes_in_use"),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _rates(work: Callable[[], int], repeats: int, seconds: float) -> list[float]:
    """Images a second of each repeat of `work`, which returns how many images it went through."""
    rates = []
    for _ in range(repeats):
        images, began = 0, time.perf_counter()
        while not images or time.perf_counter() - began < seconds:
            images += work()
        rates.append(images / (time.perf_counter() - began))
    return rates


def describe_machine() -> str:
    """The processor's name and how many of it JAX uses."""
    devices = jax.devices()
    name = devices[0].device_kind
    if devices[0].platform == "cpu":
        name = _cpu_name()
    return f"{len(devices)} x {name}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"core of {names[0]}" if names else f"core ({platform.machine()})"


def matmul_rate(mesh: jax.sharding.Mesh, dtype: str) -> float:
    """FLOP/s of one large product of random matrices on each of a mesh's devices, all at once.

    Random, because GPUs draw less power on constants and multiply them faster than any real data.
    """
    size = 1024 if jax.default_backend() == "cpu" else 8192
    random = np.random.default_rng(0).standard_normal((size, size), np.float32)
    matrices = np.broadcast_to(random.astype(dtype), (mesh.size, size, size))
    matrices = parallel.device_put_global(matrices, parallel.sharded(mesh))
    product = jax.jit(lambda a: jnp.einsum("dij,djk->dik", a, a))
    return 2 * mesh.size * size**3 / _median_seconds(product, matrices)


def copy_rate(mesh: jax.sharding.Mesh) -> float:
    """Bytes a second, read and written, of adding 1 to a large array on each device at once."""
    numbers = 2**24 if jax.default_backend() == "cpu" else 2**28
    array = parallel.device_put_global(
        np.ones((mesh.size, numbers), np.float32), parallel.sharded(mesh)
    )
    return 2 * array.nbytes / _median_seconds(jax.jit(lambda a: a + 1), array)


def _median_seconds(function: Callable, argument: jax.Array) -> float:
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asked_recipe = Recipe.from_config(asked.pop("recipe"))
    setup.prepare(deterministic=asked_recipe.deterministic, onednn=asked_recipe.onednn)
    print(json.dumps(measure(asked_recipe, **asked)))
