"""Measures one net in a process of its own; `experiments.benchmark` starts it.

python -m benchmarks.measure '{"config": "configs/cifar10.py", "model": "resnet-20", …}'
"""

import json
import resource
import sys
import time
from typing import Any

import jax

from benchmarks import machine
from resnet_jax.runs import Recipe
from resnet_jax.runs.arguments import update
from resnet_jax.runtime import parallel
from resnet_jax.sweeps.grid import load_config_file
from resnet_jax.training import trainer

TRAINING_PASSES = 3  # forward, to the images, to the weights: of the same multiply-adds each


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """Start-up, memory and speed of the training step and the evaluation of a config's net.

    Args:
      asked: `config`, a file, `model`, `fields` to set in it, `batch_size`, `image_shape`,
        `num_classes`, `num_examples` to evaluate, `repeats`, `seconds` of one repeat, and
        whether to time only the `start`.

    Returns:
      Seconds, bytes and images a second: see the keys.
    """
    began = time.perf_counter()
    config = update(load_config_file("config", asked["config"])(asked["model"]), asked["fields"])
    config.batch_size = asked["batch_size"]
    recipe = Recipe.from_config(config)
    num_examples = max(asked["num_examples"], recipe.batch_size)
    subject = trainer.with_random_data(
        recipe, asked["image_shape"], asked["num_classes"], num_examples
    )
    clock = _Laps(began)
    found: dict[str, Any] = {"model": recipe.model.name, "setup_seconds": clock.lap()}
    state = jax.block_until_ready(subject.initial_state())
    found["init_seconds"] = clock.lap()
    data, chunk = subject.splits["train"], subject.intervals().steps_per_call
    advance = subject.make_run_steps()
    lowered = advance.lower(state, data, 0, chunk)
    found["trace_seconds"] = clock.lap()
    program = lowered.compile()
    found["compile_seconds"] = clock.lap()
    _, whole, inputs = advance.arguments(state, data, 0, chunk)
    inputs = parallel.device_put_global(inputs, parallel.sharded(subject.mesh, axis=1))
    state = jax.block_until_ready(program(state, whole, inputs))
    found["first_step_seconds"] = clock.lap()
    if asked["start"]:
        return found
    found |= _memory(program)

    def train() -> int:
        nonlocal state
        state = jax.block_until_ready(program(state, whole, inputs))
        return chunk * recipe.batch_size

    evaluate = subject.make_evaluate()
    evaluate(state.variables, data)  # compiles
    found["train_images_per_second"] = _rates(train, asked)
    variables = state.variables
    found["evaluate_images_per_second"] = _rates(
        lambda: evaluate(variables, data) and len(data), asked
    )
    adds = subject.count().multiply_adds
    return found | {
        "depth": recipe.architecture.depth,
        "multiply_adds": adds,
        "flops_per_image": 2 * TRAINING_PASSES * adds,
        "deterministic": recipe.deterministic,
        "machine": machine.describe(),
        "devices": subject.mesh.size,
        "matmul_flops_per_second": machine.matmul_rate(subject.mesh, recipe.model.dtype),
        "copy_bytes_per_second": machine.copy_rate(subject.mesh),
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
    }


class _Laps:
    def __init__(self, began: float):
        self._last = began

    def lap(self) -> float:
        """Seconds since the last one."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _memory(program) -> dict[str, int]:
    """By XLA's account of one device's program; and what the process has had in memory at most."""
    sizes = program.memory_analysis()
    peak = jax.devices()[0].memory_stats() or {}
    return {
        "program_bytes": sizes.temp_size_in_bytes + sizes.argument_size_in_bytes,
        "device_peak_bytes": peak.get("peak_bytes_in_use"),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _rates(work, asked: dict[str, Any]) -> list[float]:
    """Images a second of each repeat of `work`, which returns how many images it went through."""
    rates = []
    for _ in range(asked["repeats"]):
        images, began = 0, time.perf_counter()
        while not images or time.perf_counter() - began < asked["seconds"]:
            images += work()
        rates.append(images / (time.perf_counter() - began))
    return rates


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
