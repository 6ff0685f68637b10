"""A few training steps on noise, to know how fast this machine is."""

import time

import jax

from resnet_jax.runs import recipe
from resnet_jax.sweeps.estimates import Reference, data_shape
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.training import trainer

DISPATCHES = 3  # after the first, which compiles


def measure(run: PlannedRun, multiply_adds: int) -> Reference:
    """Trains a run's net for a few steps, on the devices that a run would have here."""
    began = time.perf_counter()
    config = run.config.copy_and_resolve_references()
    if "streaming" in config:  # An image of that size takes about as long in a smaller batch.
        group, devices = recipe.bn_group_size(config), trainer.make_mesh(config).size
        part = config.batch_size // config.grad_accum_steps
        config.update(batch_size=min(part, group * devices), grad_accum_steps=1)
    subject = trainer.of_noise(config, *data_shape(run), num_examples=config.batch_size)
    data, advance, chunk = subject.splits["train"], subject.make_advance(), subject.calendar().chunk
    state = jax.block_until_ready(advance(subject.initial_state(), data, 0, chunk))
    start_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for number in range(1, DISPATCHES + 1):
        state = advance(state, data, number * chunk, (number + 1) * chunk)
    jax.block_until_ready(state)
    steps = DISPATCHES * chunk
    return Reference(
        multiply_adds=multiply_adds,
        depth=recipe.architecture(config).depth,
        start_seconds=start_seconds,
        image_seconds=(time.perf_counter() - began) / (steps * config.batch_size),
        source=f"{steps} steps of {config.model.name} made here, by multiply-adds, and its "
        "compilation, by layers; without evaluation",
    )
