"""The one place where a config becomes the objects that the library wants."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from resnet_jax.data import datasets, device_dataset
from resnet_jax.data.split import Split
from resnet_jax.models import counting, zoo
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import Row, recipe
from resnet_jax.runtime import multihost, parallel, setup
from resnet_jax.training import (
    evaluation,
    freezing,
    loop,
    schedules,
    state,
    step,
    streams,
    warm_start,
)
from resnet_jax.training.checkpoints import Checkpoints

STEPS_PER_DISPATCH = 100  # on accelerators


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config's network, data and recipe, on its devices.

    Attributes:
      splits: "train", "test" and, if the config has one, "validation".
      class_names: by label.
      image_shape: (height, width, channels).
    """

    config: ConfigDict
    mesh: jax.sharding.Mesh
    model: ResNet
    optimizer: optax.GradientTransformation
    schedule: schedules.Schedule
    splits: dict[str, Split]
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.splits["train"].image_shape

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.splits["train"]) / self.config.batch_size)

    def count(self) -> counting.Count:
        return counting.count(self.model, self.image_shape)

    def initial_state(self) -> state.TrainState:
        """Fresh weights, or, but for the classifier, those of the run that the config starts from.

        Raises:
          InputError: they cannot be had or do not fit.
        """
        key, _ = self._keys()
        fresh = state.create(key, self.model, self.image_shape, self.optimizer, self.schedule)
        if self.config.init_from:
            fresh = warm_start.take_over(fresh, Path(self.config.init_from))
        return parallel.place(fresh, parallel.replicated(self.mesh))

    def state_template(self) -> Any:
        """Shapes, types and places of a state; nothing is computed."""
        shapes = jax.eval_shape(
            lambda key: state.create(
                key, self.model, self.image_shape, self.optimizer, self.schedule
            ),
            self._keys()[0],
        )
        place = parallel.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
        )

    def make_evaluate(self) -> evaluation.Evaluate:
        return evaluation.make_evaluate(self.model, self.mesh, self.config.batch_size)

    def make_advance(self) -> loop.Advance:
        """`advance(state, train_split, start, end)`, see `loop.make_advance`."""
        config = self.config
        return loop.make_advance(
            step.make_train_step(
                self.model,
                self.optimizer,
                self.schedule,
                label_smoothing=config.label_smoothing,
                grad_accum_steps=config.grad_accum_steps,
                frozen=freezing.parse(config.freeze, self.model.architecture),
                mesh=self.mesh if config.parallel == "jit" else None,
                axis_name=parallel.axis_name(config.parallel),
            ),
            self.mesh,
            key=self._keys()[1],
            seed=config.seed,
            batch_size=config.batch_size,
            loops=self.model.loops,
            engine=config.parallel,
        )

    def calendar(self) -> loop.Calendar:
        config = self.config
        # A dispatch costs next to nothing on the CPU; of a stream there is room for one step.
        single = jax.default_backend() == "cpu" or "streaming" in config
        periods = (config.log_every, config.evaluate_every, config.checkpoint_every)
        chunk = 1 if single else _steps_per_dispatch(*periods)
        return loop.Calendar(
            num_steps=config.num_steps,
            log_every=config.log_every,
            evaluate_every=config.evaluate_every,
            checkpoint_every=config.checkpoint_every,
            chunk=config.steps_per_dispatch or chunk,
        )

    def train(
        self,
        start: state.TrainState,
        checkpoints: Checkpoints,
        log: Callable[[Row], None],
        should_stop: Callable[[], bool],
        seconds: float,
    ) -> tuple[state.TrainState, str]:
        """Trains from `start`; see `loop.fit`."""
        splits, advance = self.splits, self.make_advance()
        evaluate_split = self.make_evaluate()

        def evaluate(current: state.TrainState, at: int) -> state.TrainState:
            for name in [name for name in splits if name != "train"]:
                figures = evaluate_split(current.variables, splits[name])
                log({"step": at, "split": name, **figures})
                if name == "validation":
                    seen = self.schedule.after_validation(current.schedule, figures["error"])
                    current = current.replace(
                        schedule=parallel.place(seen, parallel.replicated(self.mesh))
                    )
            return current

        try:
            return loop.fit(
                start,
                self.calendar(),
                advance=lambda current, begin, end: advance(current, splits["train"], begin, end),
                evaluate=evaluate,
                save=checkpoints.save,
                log=log,
                should_stop=should_stop,
                batch_size=self.config.batch_size,
                seconds=seconds,
            )
        finally:
            splits["train"].close()

    def _keys(self) -> tuple[jax.Array, jax.Array]:
        """Keys of the initial weights and of the steps."""
        return keys(self.config.seed)


def _steps_per_dispatch(*periods: int) -> int:
    """At most `STEPS_PER_DISPATCH`; where a number above 9 allows it, a divisor of all periods.

    For each other number of steps in a dispatch there is another program to compile.
    """
    common = math.gcd(*periods)
    divisors = (n for n in range(STEPS_PER_DISPATCH, 9, -1) if common % n == 0)
    return next(divisors, STEPS_PER_DISPATCH)


def keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Keys of a seed's initial weights and of its steps."""
    return tuple(jax.random.split(jax.random.key(seed)))


def build(config: ConfigDict) -> Experiment:
    """Loads the data and makes the objects; `configuration.check` comes first.

    Raises:
      InputError: the data cannot be had, or do not suit the config or the devices.
    """
    mesh = make_mesh(config)
    return assemble(config, mesh, *load_splits(config, mesh))


def make_mesh(config: ConfigDict) -> jax.sharding.Mesh:
    """The devices that a config's run has here; call it before JAX first computes.

    Raises:
      InputError: there are not as many, or they do not suit the config.
    """
    setup.prepare(deterministic=config.deterministic, onednn=config.onednn)
    net, part = recipe.architecture(config), config.batch_size // config.grad_accum_steps
    num_groups = part // recipe.bn_group_size(config)
    mesh = parallel.make_mesh(part, num_groups, config.num_devices)
    if config.parallel == "pmap":
        parallel.check_pmap(mesh, num_groups=num_groups, stochastic=net.is_stochastic)
    return mesh


def assemble(
    config: ConfigDict,
    mesh: jax.sharding.Mesh,
    splits: dict[str, Split],
    class_names: tuple[str, ...],
) -> Experiment:
    """The objects of a config, around data that are there already."""
    optimizer = config.optimizer
    return Experiment(
        config=config,
        mesh=mesh,
        model=zoo.create(
            config.model.name,
            num_classes=len(class_names),
            dtype=config.model.dtype,
            remat=config.remat,
            # A frozen stage's batch norms are known by its name, which a loop's units lack.
            scan_blocks=config.scan_blocks and not config.freeze,
            **recipe.model_overrides(config),
        ),
        optimizer=freezing.optimizer(
            step.sgd(
                optimizer.momentum,
                optimizer.weight_decay,
                weight_decay_mask=optimizer.weight_decay_mask,
                nesterov=optimizer.nesterov,
            ),
            freezing.parse(config.freeze, recipe.architecture(config)),
        ),
        schedule=schedules.Schedule(num_steps=config.num_steps, **config.schedule),
        splits=splits,
        class_names=class_names,
    )


def of_noise(
    config: ConfigDict, shape: tuple[int, int, int], num_classes: int, num_examples: int
) -> Experiment:
    """A config's experiment on random images [height, width, channels], to see how fast it runs."""
    mesh = make_mesh(config)
    random = np.random.default_rng(0)
    images = random.integers(256, size=(num_examples, *shape), dtype=np.uint8)
    labels = random.integers(num_classes, size=num_examples, dtype=np.int32)
    statistics = device_dataset.normalization(images, "channel")
    padding, flip = config.dataset.crop_padding, config.dataset.flip
    noise = device_dataset.Resident(images, labels, statistics, padding, flip)
    noise = parallel.place(noise, parallel.replicated(mesh))
    names = tuple(map(str, range(num_classes)))
    return assemble(config, mesh, {"train": noise, "test": noise}, names)


def load_splits(
    config: ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The config's splits, normalised as the training split is, and its classes."""
    if "streaming" in config:
        return streams.load_splits(config, mesh)
    dataset = config.dataset
    named = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    examples = {
        name: datasets.load(
            dataset.name, split, data_dir=dataset.data_dir, image_size=dataset.image_size
        )
        for name, split in named.items()
        if split
    }
    multihost.same_everywhere("dataset", lambda: _bytes(examples))
    statistics = device_dataset.normalization(examples["train"].images, dataset.mean, dataset.std)
    place = parallel.replicated(mesh)
    splits = {
        name: parallel.place(
            device_dataset.Resident(
                part.images, part.labels, statistics, dataset.crop_padding, dataset.flip
            ),
            place,
        )
        for name, part in examples.items()
    }
    return splits, examples["train"].class_names


def _bytes(splits: dict[str, datasets.Examples]) -> bytes:
    return b"".join(part.images.tobytes() + part.labels.tobytes() for part in splits.values())
