"""A few training steps on noise, to know how fast this machine is."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import configuration
from experiments.sweeps.estimates import Reference, data_shape
from experiments.sweeps.plan import PlannedRun
from resnet_jax import parallel
from resnet_jax.models import zoo
from resnet_jax.training import schedules, state, step

STEPS = 3


def measure(run: PlannedRun, multiply_adds: int) -> Reference:
    """Trains a run's net for `STEPS` steps, on the devices that a run would have here."""
    config = run.config
    began = time.perf_counter()
    train, current, batch = _training(config, *data_shape(run))
    current = jax.block_until_ready(train(current, batch))
    start_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(STEPS):
        current = train(current, batch)
    jax.block_until_ready(current)
    return Reference(
        multiply_adds=multiply_adds,
        depth=configuration.architecture(config).depth,
        start_seconds=start_seconds,
        image_seconds=(time.perf_counter() - began) / (STEPS * config.batch_size),
        source=f"{STEPS} steps of {config.model.name} made here, by multiply-adds, and its "
        "compilation, by layers; without evaluation",
    )


def _training(
    config: ConfigDict, shape: tuple[int, int, int], num_classes: int
) -> tuple[Callable, Any, Any]:
    """A compiled step, a state and a batch on their devices."""
    model = zoo.create(
        config.model.name,
        num_classes=num_classes,
        dtype=config.model.dtype,
        **configuration.model_overrides(config),
    )
    parallel.use_cores_as_devices()
    part = config.batch_size // config.accumulate
    mesh = parallel.make_mesh(part, part // configuration.group_size(config), config.num_devices)
    optimizer = step.sgd(config.optimizer.momentum, config.optimizer.weight_decay)
    schedule = schedules.Schedule("constant", config.num_steps, config.schedule.learning_rate)
    key = jax.random.key(0)
    one_step = step.make_train_step(model, optimizer, schedule, accumulate=config.accumulate)
    start = state.create(key, model, shape, optimizer, schedule)
    random = np.random.default_rng(0)
    images = random.random((config.batch_size, *shape), np.float32)
    labels = random.integers(num_classes, size=config.batch_size, dtype=np.int32)
    return (
        jax.jit(lambda current, batch: one_step(current, batch, key)[0]),
        jax.device_put(start, parallel.replicated(mesh)),
        jax.device_put((images, labels), parallel.sharded(mesh)),
    )
