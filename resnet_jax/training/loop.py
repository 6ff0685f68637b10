"""Chunks of steps between the points where something must happen, and nothing else."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from resnet_jax.data.split import Inputs, OnDevices, Split
from resnet_jax.models import scan_layers
from resnet_jax.runs import Row
from resnet_jax.runtime import parallel
from resnet_jax.training.state import NOT_DIVERGED, TrainState, Window
from resnet_jax.training.step import Batch, Metrics


@dataclasses.dataclass(frozen=True)
class Calendar:
    """At which steps something happens; all attributes count steps.

    Attributes:
      num_steps: the run's length. Logging, evaluation and a checkpoint end it.
      log_every, evaluate_every, checkpoint_every: periods.
      chunk: the most steps in one dispatch.
    """

    num_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    chunk: int = 1

    def chunk_end(self, step: int) -> int:
        """Where the chunk that begins at `step` ends.

        It depends on nothing but the step, so that a run which was stopped and started again
        computes the same chunks, and with them the same bits.
        """
        periods = (self.log_every, self.evaluate_every, self.checkpoint_every, self.chunk)
        return min(self.num_steps, *((step // period + 1) * period for period in periods))

    def anything_due(self, step: int) -> bool:
        periods = (self.log_every, self.evaluate_every, self.checkpoint_every)
        return any(self.is_due(period, step) for period in periods)

    def is_due(self, period: int, step: int) -> bool:
        return step % period == 0 or step == self.num_steps


Advance = Callable[[TrainState, Split, int, int], TrainState]


def make_advance(
    train_step: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]],
    mesh: Mesh,
    *,
    key: jax.Array,
    seed: int,
    batch_size: int,
    loops: scan_layers.ScannedBlocks,
    engine: str = "jit",
) -> Advance:
    """Makes `advance(state, data, start, end) -> state`: the steps from `start` up to `end`.

    They are one dispatch. `state` is donated: it must not be used again. As with functions of
    `jax.jit`, `advance.lower` with the same arguments gives the program, which takes what
    `advance.arguments` makes of them, the last sharded along the batch.

    Args:
      train_step: of `make_train_step`, with the engine's `parallel.axis_name`.
      mesh: the devices.
      key: of the augmentation and of dropout; every step folds its number in.
      seed: of the order of the examples.
      batch_size: examples a step.
      loops: of the net, see `ResNet.scanned_blocks`; within a dispatch the state is packed so.
      engine: "jit" or "pmap", see `parallel.spread`.
    """
    axis = parallel.axis_name(engine)
    # An argument of the program, not a part of it: it is compiled once for all seeds.
    bits = parallel.place(jax.random.key_data(key), parallel.replicated(mesh))

    def one_step(state: TrainState, data: OnDevices, bits: jax.Array, inputs: Inputs) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(bits), state.step)
        augment_key, dropout_key = jax.random.split(key)
        own = lambda arrays: parallel.own_part(arrays, axis)
        batch = data.augmented(inputs, augment_key, batch_size, own)
        step = state.step
        state, metrics = train_step(state, batch, dropout_key)
        return state.replace(window=state.window.add(step, metrics))

    def chunk(state: TrainState, whole: tuple[OnDevices, jax.Array], inputs: Inputs) -> TrainState:
        body = lambda state, inputs: (one_step(state, *whole, inputs), None)
        packed, _ = jax.lax.scan(body, scan_layers.pack(state, loops), inputs)
        return scan_layers.unpack(packed, loops)

    run = parallel.spread(chunk, mesh, engine)

    def arguments(state, data, start, end):
        inputs = data.inputs(seed, start, end, batch_size, state.step)
        return state, (data.on_devices, bits), inputs

    def advance(state, data, start, end):
        return run(*arguments(state, data, start, end))

    advance.arguments = arguments
    advance.lower = lambda *args: run.lower(*arguments(*args))
    return advance


def fit(
    state: TrainState,
    calendar: Calendar,
    *,
    advance: Callable[[TrainState, int, int], TrainState],
    evaluate: Callable[[TrainState, int], TrainState],
    save: Callable[[TrainState], None],
    log: Callable[[Row], None],
    should_stop: Callable[[], bool],
    batch_size: int,
    seconds: float = 0.0,
) -> tuple[TrainState, str]:
    """Trains from `state` to the end of the calendar.

    At a step where several things are due the order is: log, evaluate, save. What was logged and
    evaluated is therefore never newer than work that a checkpoint could not do again.

    Args:
      advance: `advance(state, start, end)` makes the steps from `start` up to `end`.
      evaluate: logs the errors and lets the schedule see them.
      save: starts writing a checkpoint.
      log: takes the training rows, of which `seconds` and `images_per_second` are measured here.
      should_stop: asked after every chunk.
      seconds: spent by earlier parts of this run.

    Returns:
      The last state and "completed", "diverged" (the loss was not finite) or "stopped" (asked
      to; the state is saved).
    """
    clock = _Clock(seconds)
    step = int(state.step)
    if should_stop() and step < calendar.num_steps:
        return state, "stopped"  # Before the first step, which compiles; all there is, is saved.
    while step < calendar.num_steps:
        end = calendar.chunk_end(step)
        state = advance(state, step, end)
        clock.trained((end - step) * batch_size, state)
        step = end
        stopping = should_stop() and step < calendar.num_steps
        if not (stopping or calendar.anything_due(step)):
            continue
        clock.pause(state)
        if calendar.is_due(calendar.log_every, step):
            window: Window = jax.device_get(state.window)
            log({"step": step, "split": "train", **_means(window), **clock.read()})
            if window.diverged_at != NOT_DIVERGED:
                return state, "diverged"
            state = state.replace(window=parallel.place(Window.empty(), state.step.sharding))
        if calendar.is_due(calendar.evaluate_every, step):
            state = evaluate(state, step)
        if stopping or calendar.is_due(calendar.checkpoint_every, step):
            save(state)
        if stopping:
            return state, "stopped"
        clock.resume()
    return state, "completed"


class _Clock:
    """Time spent in training alone: without the first chunk, which compiles, and evaluations."""

    def __init__(self, seconds_before: float):
        self._began = time.perf_counter() - seconds_before
        self._compiled = False
        self._images, self._busy, self._since = 0, 0.0, 0.0

    def trained(self, images: int, state: TrainState) -> None:
        if self._compiled:
            self._images += images
        else:
            jax.block_until_ready(state.step)
            self._compiled = True
            self.resume()

    def pause(self, state: TrainState) -> None:
        jax.block_until_ready(state.step)
        self._busy += time.perf_counter() - self._since

    def resume(self) -> None:
        self._since = time.perf_counter()

    def read(self) -> Row:
        """The rate since the last reading, and the run's seconds so far."""
        rate = self._images / self._busy if self._images else None
        self._images, self._busy = 0, 0.0
        return {"images_per_second": rate, "seconds": time.perf_counter() - self._began}


def _means(window: Window) -> dict[str, Any]:
    count = int(window.num_steps)
    return {
        "loss": float(window.loss) / count,
        "error": float(window.error) / count,
        "gradient_norm": float(window.gradient_norm) / count,
        "learning_rate": float(window.learning_rate),
    }
