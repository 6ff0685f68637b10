"""Learning rates: a schedule over steps, a warm-up before it, and feedback from the errors.

A rate may depend on more than the step: the first paper's 110-layer network warms up *until* its
training error falls below 80%, and its ImageNet networks drop the rate *when* the validation error
stops improving. What such rules remember is a `ScheduleState`, part of the training state.
"""

import collections
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import struct

from resnet_jax.runs.recipe import Recipe, check_schedule

_SMOOTHING = 0.95  # of the training error that ends the "until_error" warm-up


class ScheduleState(struct.PyTreeNode):
    """What adaptive rules remember.

    Attributes:
      warming: bool [], whether the "until_error" warm-up still runs.
      train_error: float32 [], running mean of the batches' errors.
      plateau: state of `optax.contrib.reduce_on_plateau`.
    """

    warming: jax.Array
    train_error: jax.Array
    plateau: optax.OptState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate for every step.

    Attributes:
      name: "steps" (multiply by `decay_factor` at each boundary), "plateau" (multiply by
        `decay_factor` when the validation error has not improved in `patience` evaluations),
        "cosine" (to zero) or "constant".
      num_steps: of the whole run.
      learning_rate: before any drop.
      boundaries: for "steps"; whole numbers are steps, fractions are parts of `num_steps`
        (v1 §4.2: 32k and 48k of 64k are 0.5 and 0.75).
      decay_factor, patience: see `name`.
      warmup: "none", "constant" (`warmup_learning_rate` for `warmup_steps`; v2's CIFAR networks),
        "linear" (from 0 in `warmup_steps`) or "until_error" (`warmup_learning_rate` until the
        running training error is below `warmup_error`; v1 §4.2, ResNet-110).

    Raises:
      InputError: a value is not allowed.
    """

    name: str
    num_steps: int
    learning_rate: float
    boundaries: Sequence[int | float] = ()
    decay_factor: float = 0.1
    patience: int = 5
    warmup: str = "none"
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.01
    warmup_error: float = 0.8

    @classmethod
    def of(cls, recipe: Recipe) -> "Schedule":
        """The schedule of a run."""
        return cls(num_steps=recipe.num_steps, **dataclasses.asdict(recipe.schedule))

    def __post_init__(self):
        check_schedule(self, self.num_steps)

    def init(self) -> ScheduleState:
        """What the schedule has seen before the first step: nothing."""
        return ScheduleState(
            warming=jnp.asarray(self.warmup == "until_error"),
            train_error=jnp.ones((), jnp.float32),
            plateau=self._plateau.init({}),
        )

    def rate(self, state: ScheduleState, step: jax.Array) -> jax.Array:
        """The learning rate, float32 [], of step number `step`, counted from 0."""
        rate = self._base(step)
        if self.warmup == "linear":
            rate *= jnp.minimum(1.0, (step + 1) / self.warmup_steps)
        elif self.warmup == "constant":
            rate = jnp.where(
                step < self.warmup_steps, jnp.minimum(self.warmup_learning_rate, rate), rate
            )
        elif self.warmup == "until_error":
            # The lower one: a network that never gets below the error drops its rate all the same.
            rate = jnp.where(state.warming, jnp.minimum(self.warmup_learning_rate, rate), rate)
        if self.name == "plateau":
            rate *= state.plateau.scale
        return jnp.asarray(rate, jnp.float32)

    def after_step(self, state: ScheduleState, train_error: jax.Array) -> ScheduleState:
        """Takes note of a training batch's error."""
        running = _SMOOTHING * state.train_error + (1 - _SMOOTHING) * train_error
        warming = state.warming & (running >= self.warmup_error)
        return state.replace(warming=warming, train_error=running)

    def warms_up_late(self, state: ScheduleState, step: int) -> bool:
        """Whether the "until_error" warm-up still runs after a tenth of the run (v1: 400 steps)."""
        late = self.warmup == "until_error" and step >= self.num_steps / 10
        return late and bool(state.warming)

    def after_validation(self, state: ScheduleState, error: float) -> ScheduleState:
        """Takes note of the whole validation split's error."""
        if self.name != "plateau":
            return state
        _, plateau = self._plateau.update({}, state.plateau, value=jnp.float32(error))
        return state.replace(plateau=plateau)

    @property
    def _base(self) -> optax.Schedule:
        if self.name == "cosine":
            return optax.cosine_decay_schedule(self.learning_rate, self.num_steps)
        steps = map(self._step, self.boundaries if self.name == "steps" else ())
        drops = {step: self.decay_factor**n for step, n in collections.Counter(steps).items()}
        return optax.piecewise_constant_schedule(self.learning_rate, drops)

    def _step(self, boundary: int | float) -> int:
        """The first step at the lower rate."""
        return round(boundary * self.num_steps) if isinstance(boundary, float) else boundary

    @property
    def _plateau(self) -> optax.GradientTransformationExtraArgs:
        return optax.contrib.reduce_on_plateau(factor=self.decay_factor, patience=self.patience)
