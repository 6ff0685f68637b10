"""Everything a run needs to resume: what a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from resnet_jax.training.schedules import Schedule, ScheduleState

NOT_DIVERGED = -1


class MetricAccumulator(struct.PyTreeNode):
    """Training metrics since the last row of the log.

    They are part of the state, so that a run which is stopped between two rows and started
    again writes the same rows as one that was not.

    Attributes:
      num_steps: int32 [].
      loss, error, gradient_norm: float32 [], sums over the steps.
      learning_rate: float32 [], of the last step.
      diverged_at: int32 [], the first step whose loss or gradient was not finite, or
        `NOT_DIVERGED`.
    """

    num_steps: jax.Array
    loss: jax.Array
    error: jax.Array
    gradient_norm: jax.Array
    learning_rate: jax.Array
    diverged_at: jax.Array

    @classmethod
    def empty(cls) -> "MetricAccumulator":
        """The sums of no steps."""
        # Four arrays, not one four times: a buffer can be donated only once.
        count, diverged_at = jnp.zeros((), jnp.int32), jnp.full((), NOT_DIVERGED, jnp.int32)
        loss, error, gradient_norm, rate = (jnp.zeros((), jnp.float32) for _ in range(4))
        return cls(count, loss, error, gradient_norm, rate, diverged_at)

    def add(self, step: jax.Array, metrics: dict[str, jax.Array]) -> "MetricAccumulator":
        """Takes in the metrics of step number `step`, counted from 0."""
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        first = (self.diverged_at == NOT_DIVERGED) & ~finite
        return MetricAccumulator(
            num_steps=self.num_steps + 1,
            loss=self.loss + metrics["loss"],
            error=self.error + metrics["error"],
            gradient_norm=self.gradient_norm + metrics["gradient_norm"],
            learning_rate=metrics["learning_rate"],
            diverged_at=jnp.where(first, step + 1, self.diverged_at),
        )


class TrainState(struct.PyTreeNode):
    """The state of training after `step` steps.

    Attributes:
      step: int32 [], updates made.
      params: the model's parameters.
      batch_stats: batch norm's running statistics.
      opt_state: optax's, the momentum.
      schedule: what the learning rate depends on besides the step.
      window: metrics since the last row of the log.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    schedule: ScheduleState
    window: MetricAccumulator

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create(
    key: jax.Array,
    model: nn.Module,
    image_shape: tuple[int, int, int],
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
) -> TrainState:
    """The state before the first step, for images of [height, width, channels]."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # The same numbers as `init`, without computing the forward pass operation by operation.
    return begin(model.lazy_init(key, images, train=False), optimizer, schedule)


def begin(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation, schedule: Schedule
) -> TrainState:
    """The state before the first step, with the weights of `variables`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        schedule=schedule.init(),
        window=MetricAccumulator.empty(),
    )
