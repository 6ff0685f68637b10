"""How fast a recipe trains on this machine, and how fast the machine is at the simplest work.

    python -m resnet_jax.training.speed '{"recipe": {…}, "image_shape": [32, 32, 3], …}'

is `measure` in a process of its own, from the compiler on.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.runs import Recipe, folder
from resnet_jax.runtime import parallel, setup
from resnet_jax.training import trainer

TRAINING_PASSES = 3  # forward, to the images, to the weights: of the same multiply-adds each
REPEATS = 7  # of a product or a copy


class TimedStep:
    """A recipe's training step on random images that stay on the devices, made once already.

    Args:
      recipe: its data set is not read.
      image_shape: (height, width, channels).
      num_classes, num_examples: of the random data.

    Attributes:
      experiment: the recipe's objects.
      program: the compiled call, of `steps` steps.
      start_seconds: what each part of the start took.
    """

    def __init__(
        self, recipe: Recipe, image_shape: Sequence[int], num_classes: int, num_examples: int
    ):
        self.start_seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        self.experiment = trainer.with_random_data(recipe, image_shape, num_classes, num_examples)
        self._lap("setup")
        self.state = jax.block_until_ready(self.experiment.initial_state())
        self._lap("init")
        data, run_steps = self.experiment.splits["train"], self.experiment.make_run_steps()
        self.steps = self.experiment.intervals().steps_per_call
        lowered = run_steps.lower(self.state, data, 0, self.steps)
        self._lap("trace")
        self.program = lowered.compile()
        self._lap("compile")
        _, self._data, inputs = run_steps.arguments(self.state, data, 0, self.steps)
        self._inputs = run_steps.program.place(inputs)
        self.train()
        self._lap("first_step")

    def _lap(self, part: str) -> None:
        before, self._last = self._last, time.perf_counter()
        self.start_seconds[f"{part}_seconds"] = self._last - before

    def train(self) -> int:
        """Makes a call's steps; returns how many images they took."""
        self.state = jax.block_until_ready(self.program(self.state, self._data, self._inputs))
        return self.steps * self.experiment.recipe.batch_size


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
      recipe, image_shape, num_classes: see `TimedStep`.
      num_examples: are evaluated; as many as a batch at least.
      repeats: how often each rate is measured.
      seconds: of one repeat, at least.
      start_only: whether to end after the first step.

    Returns:
      Seconds, bytes and images a second: see the keys.
    """
    timed = TimedStep(recipe, image_shape, num_classes, max(num_examples, recipe.batch_size))
    found = {"model": recipe.model.name, **timed.start_seconds}
    if start_only:
        return found
    experiment, program = timed.experiment, timed.program
    data, evaluate = experiment.splits["train"], experiment.make_evaluate()
    variables = jax.tree.map(jnp.copy, timed.state.variables)
    evaluate(variables, data)  # compiles
    adds, memory = experiment.count().multiply_adds, program.memory_analysis()
    return {
        **found,
        "program_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "train_images_per_second": rates(timed.train, repeats, seconds),
        "evaluate_images_per_second": rates(
            lambda: len(data) if evaluate(variables, data) else 0, repeats, seconds
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


def rates(work: Callable[[], int], repeats: int, seconds: float) -> list[float]:
    """Images a second of each repeat of `work`, which returns how many images it went through."""
    found = []
    for _ in range(repeats):
        images, began = 0, time.perf_counter()
        while not images or time.perf_counter() - began < seconds:
            images += work()
        found.append(images / (time.perf_counter() - began))
    return found


def describe_machine() -> str:
    """The processor's name and how many of it JAX uses."""
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    name = f"core of {folder.processor_name()}" if on_cpu else devices[0].device_kind
    return f"{len(devices)} x {name}"


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
