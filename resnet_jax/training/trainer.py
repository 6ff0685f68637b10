"""A recipe's network, data and optimiser on its devices, and the loop that trains them.

The loop makes steps between the points where something is due, and nothing else.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.data import datasets, device_dataset, streaming
from resnet_jax.data.image_ops import CropConfig
from resnet_jax.data.splits import SPLITS, Inputs, OnDevices, Split
from resnet_jax.data.tfds_sets import Records
from resnet_jax.errors import InputError
from resnet_jax.models import counting, scan_layers
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import Recipe, Row, last_epoch_start
from resnet_jax.runs.recipe import Dataset
from resnet_jax.runtime import cpu, multihost, parallel, setup
from resnet_jax.training import evaluation, schedules, state, step
from resnet_jax.training.checkpoints import Checkpoints, check_shapes, load_weights
from resnet_jax.training.state import NOT_DIVERGED, MetricAccumulator, TrainState
from resnet_jax.training.step import Batch, Metrics

STATISTICS = "normalization.npz"  # in a run's folder
STEPS_PER_CALL = 100  # on accelerators


@dataclasses.dataclass(frozen=True)
class Intervals:
    """At which steps something happens; all attributes count steps.

    Attributes:
      num_steps: the run's length. Logging, evaluation and a checkpoint end it.
      log_every, evaluate_every, checkpoint_every: periods.
      steps_per_call: the most steps in one call of the program.
      log_at: a step that is logged, too.
    """

    num_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    steps_per_call: int = 1
    log_at: int = 0

    @property
    def _periods(self) -> tuple[int, int, int]:
        return self.log_every, self.evaluate_every, self.checkpoint_every

    def call_end(self, step: int) -> int:
        """Where the call that begins at `step` ends.

        It depends on nothing but the step, so that a run which was stopped and started again
        makes the same calls, and ends bitwise identical.
        """
        periods = (*self._periods, self.steps_per_call)
        end = min(self.num_steps, *((step // period + 1) * period for period in periods))
        return self.log_at if step < self.log_at < end else end

    def anything_due(self, step: int) -> bool:
        """Whether the program stops after `step`, to log, evaluate or save."""
        return self.is_logged(step) or any(self.is_due(period, step) for period in self._periods)

    def is_logged(self, step: int) -> bool:
        """Whether a row of training metrics ends with `step`."""
        return step == self.log_at or self.is_due(self.log_every, step)

    def is_due(self, period: int, step: int) -> bool:
        """Whether what is done every `period` steps, and after the last, is done after `step`."""
        return step % period == 0 or step == self.num_steps


@dataclasses.dataclass(frozen=True)
class RunSteps:
    """What `make_run_steps` makes."""

    program: parallel.Program
    arguments: Callable[[TrainState, Split, int, int], tuple[TrainState, Any, Inputs]]

    def __call__(self, state: TrainState, data: Split, start: int, end: int) -> TrainState:
        return self.program(*self.arguments(state, data, start, end))

    def lower(self, state: TrainState, data: Split, start: int, end: int) -> Any:
        return self.program.lower(*self.arguments(state, data, start, end))


def make_run_steps(
    train_step: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]],
    mesh: jax.sharding.Mesh,
    *,
    key: jax.Array,
    seed: int,
    batch_size: int,
    loops: scan_layers.ScannedBlocks,
    engine: str = "jit",
) -> RunSteps:
    """Makes `run_steps(state, data, start, end) -> state`: the steps from `start` up to `end`.

    They are one call. `state` is donated: it must not be used again. As with functions of
    `jax.jit`, `run_steps.lower` with the same arguments gives the program, which takes what
    `run_steps.arguments` makes of them, the last as `run_steps.program.place` puts it.

    Args:
      train_step: of `make_train_step`, with the engine's `parallel.axis_name`.
      mesh: the devices.
      key: of the augmentation and of dropout; every step folds its number in.
      seed: of the order of the examples.
      batch_size: examples a step.
      loops: of the network, see `ResNet.scanned_blocks`; within a call the state is packed so.
      engine: "jit" or "pmap", see `parallel.ENGINES`.
    """
    axis = parallel.axis_name(engine)
    # An argument of the program, not a part of it: it is compiled once for all seeds.
    bits = parallel.device_put_global(jax.random.key_data(key), parallel.replicated(mesh))

    def one_step(state: TrainState, data: OnDevices, bits: jax.Array, inputs: Inputs) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(bits), state.step)
        augment_key, dropout_key = jax.random.split(key)
        own = lambda arrays: parallel.local_shard(arrays, axis)
        batch = data.augmented(inputs, augment_key, batch_size, own)
        step = state.step
        state, metrics = train_step(state, batch, dropout_key)
        return state.replace(window=state.window.add(step, metrics))

    def call(state: TrainState, whole: tuple[OnDevices, jax.Array], inputs: Inputs) -> TrainState:
        body = lambda state, inputs: (one_step(state, *whole, inputs), None)
        with cpu.batches_shared_by(1 if axis else mesh.size):  # With an axis a batch is a part.
            packed, _ = jax.lax.scan(body, scan_layers.pack(state, loops), inputs)
        return scan_layers.unpack(packed, loops)

    def arguments(state, data, start, end):
        inputs = data.inputs(seed, start, end, batch_size, state.step)
        return state, (data.on_devices, bits), inputs

    return RunSteps(parallel.ENGINES[engine](call, mesh), arguments)


def fit(
    state: TrainState,
    intervals: Intervals,
    *,
    run_steps: Callable[[TrainState, int, int], TrainState],
    evaluate: Callable[[TrainState, int], TrainState],
    save: Callable[[TrainState], None],
    log: Callable[[Row], None],
    should_stop: Callable[[], bool],
    batch_size: int,
    seconds: float = 0.0,
) -> tuple[TrainState, str]:
    """Trains from `state` to the end of the intervals.

    At a step where several things are due the order is: log, evaluate, save. What was logged and
    evaluated is therefore never newer than work that a checkpoint could not do again.

    Args:
      run_steps: `run_steps(state, start, end)` makes the steps from `start` up to `end`.
      evaluate: logs the errors and lets the schedule see them.
      save: starts writing a checkpoint.
      log: takes the training rows, of which `seconds` and `images_per_second` are measured here.
      should_stop: asked after every call.
      seconds: spent by earlier parts of this run.

    Returns:
      The last state and "completed", "diverged" (the loss was not finite) or "stopped" (asked
      to; the state is saved).
    """
    clock = _Clock(seconds)
    step = int(state.step)
    if should_stop() and step < intervals.num_steps:
        return state, "stopped"  # Before the first step, which compiles; all there is, is saved.
    while step < intervals.num_steps:
        end = intervals.call_end(step)
        state = run_steps(state, step, end)
        clock.trained((end - step) * batch_size, state)
        step = end
        stopping = should_stop() and step < intervals.num_steps
        if not (stopping or intervals.anything_due(step)):
            continue
        clock.pause(state)
        if intervals.is_logged(step):
            window: MetricAccumulator = jax.device_get(state.window)
            log({"step": step, "split": "train", **_means(window), **clock.read()})
            if window.diverged_at != NOT_DIVERGED:
                return state, "diverged"
            state = state.replace(
                window=parallel.device_put_global(MetricAccumulator.empty(), state.step.sharding)
            )
        if intervals.is_due(intervals.evaluate_every, step):
            state = evaluate(state, step)
        if stopping or intervals.is_due(intervals.checkpoint_every, step):
            save(state)
        if stopping:
            return state, "stopped"
        clock.resume()
    return state, "completed"


class _Clock:
    """Time spent in training alone: without the first call, which compiles, and evaluations."""

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


def _means(window: MetricAccumulator) -> dict[str, Any]:
    count = int(window.num_steps)
    return {
        "loss": float(window.loss) / count,
        "error": float(window.error) / count,
        "gradient_norm": float(window.gradient_norm) / count,
        "learning_rate": float(window.learning_rate),
    }


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's network, data and optimiser, on its devices.

    Attributes:
      splits: "train", "test" and, if the recipe has one, "validation".
      class_names: by label.
      image_shape: (height, width, channels).
    """

    recipe: Recipe
    mesh: jax.sharding.Mesh
    model: ResNet
    optimizer: optax.GradientTransformation
    schedule: schedules.Schedule
    splits: dict[str, Split]
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return next(iter(self.splits.values())).image_shape

    @property
    def statistics(self) -> device_dataset.Normalization:
        """Those of the training images, which a run keeps in its folder."""
        kept = next(iter(self.splits.values())).on_devices.normalization
        return device_dataset.Normalization(*map(np.asarray, kept))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.splits["train"]) / self.recipe.batch_size)

    @property
    def devices(self) -> str:
        """E.g. "8 x NVIDIA H100"."""
        devices = self.mesh.devices.ravel()
        return f"{devices.size} x {devices[0].device_kind}"

    def describe(self, current: TrainState) -> str:
        """What is trained on what and where, for whoever waits for the first step."""
        parameters = sum(leaf.size for leaf in jax.tree.leaves(current.params))
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in self.splits.items())
        shape, step = "×".join(map(str, self.image_shape)), int(current.step)
        return (
            f"{self.recipe.model.name} ({parameters:,} parameters) on {self.recipe.dataset.name}: "
            f"{sizes} images of {shape}, {len(self.class_names)} classes; {self.devices}; "
            f"{f'resuming at step {step}, ' if step else ''}compiling"
        )

    def count(self) -> counting.Count:
        """Parameters and multiply-adds of the network, for one image."""
        return counting.count(self.model, self.image_shape)

    def initial_state(self) -> TrainState:
        """Fresh weights, or, but for the classifier, those of the run in `init_from`.

        Raises:
          InputError: they cannot be loaded or do not fit.
        """
        fresh = self._fresh_state()
        if self.recipe.init_from:
            fresh = load_pretrained(fresh, Path(self.recipe.init_from))
        return parallel.device_put_global(fresh, parallel.replicated(self.mesh))

    def state_template(self) -> Any:
        """Shapes, types and places of a state; nothing is computed."""
        shapes, place = jax.eval_shape(self._fresh_state), parallel.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
        )

    def _fresh_state(self) -> TrainState:
        key, _ = keys(self.recipe.seed)
        return state.create(key, self.model, self.image_shape, self.optimizer, self.schedule)

    def make_evaluate(self) -> evaluation.Evaluate:
        """`evaluate(variables, split)`, see `evaluation.make_evaluate`."""
        return evaluation.make_evaluate(self.model, self.mesh, self.recipe.batch_size)

    def make_run_steps(self) -> RunSteps:
        """`run_steps(state, train_split, start, end)`, see the function."""
        recipe = self.recipe
        return make_run_steps(
            step.make_train_step(
                self.model,
                self.optimizer,
                self.schedule,
                label_smoothing=recipe.label_smoothing,
                grad_accum_steps=recipe.grad_accum_steps,
                frozen=recipe.frozen_parts,
                mesh=self.mesh if recipe.parallel == "jit" else None,
                axis_name=parallel.axis_name(recipe.parallel),
            ),
            self.mesh,
            key=keys(recipe.seed)[1],
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            loops=self.model.scanned_blocks,
            engine=recipe.parallel,
        )

    def intervals(self) -> Intervals:
        """When the run logs, evaluates and saves, and how many steps a call makes."""
        recipe = self.recipe
        # A call costs next to nothing on the CPU; of a stream there is room for one step.
        single = jax.default_backend() == "cpu" or recipe.streaming
        periods = (recipe.log_every, recipe.evaluate_every, recipe.checkpoint_every)
        steps = 1 if single else _steps_per_call(*periods)
        start = int(last_epoch_start(recipe.num_steps, self.steps_per_epoch))
        return Intervals(
            num_steps=recipe.num_steps,
            log_every=recipe.log_every,
            evaluate_every=recipe.evaluate_every,
            checkpoint_every=recipe.checkpoint_every,
            steps_per_call=recipe.steps_per_dispatch or steps,
            # Else one row would hold the last epoch and what came before it.
            log_at=start if recipe.log_every > recipe.num_steps - start else 0,
        )

    def train(
        self,
        start: TrainState,
        checkpoints: Checkpoints,
        log: Callable[[Row], None],
        should_stop: Callable[[], bool],
        seconds: float,
        note: Callable[[str], None] = print,
    ) -> tuple[TrainState, str]:
        """Trains from `start`; see `fit`. What a reader of the log should know goes to `note`."""
        splits, run_steps = self.splits, self.make_run_steps()
        evaluate_split = self.make_evaluate()
        told = False

        def evaluate(current: TrainState, at: int) -> TrainState:
            """Logs the errors of all splits but the training one; the schedule may follow them."""
            nonlocal told
            if not told and self.schedule.warms_up_late(current.schedule, at):
                told = True
                note(
                    f"step {at}: still warming up at a learning rate of "
                    f"{self.schedule.warmup_learning_rate:g}, for the training error has not "
                    f"fallen below {self.schedule.warmup_error:.0%} "
                    "(schedule.warmup='until_error')"
                )
            for name in [name for name in splits if name != "train"]:
                metrics = evaluate_split(current.variables, splits[name])
                log({"step": at, "split": name, **metrics})
                if name == "validation":
                    seen = self.schedule.after_validation(current.schedule, metrics["error"])
                    current = current.replace(
                        schedule=parallel.device_put_global(seen, parallel.replicated(self.mesh))
                    )
            return current

        try:
            return fit(
                start,
                self.intervals(),
                run_steps=lambda current, begin, end: run_steps(
                    current, splits["train"], begin, end
                ),
                evaluate=evaluate,
                save=checkpoints.save,
                log=log,
                should_stop=should_stop,
                batch_size=self.recipe.batch_size,
                seconds=seconds,
            )
        finally:
            splits["train"].close()


def _steps_per_call(*periods: int) -> int:
    """At most `STEPS_PER_CALL`; where a number above 9 allows it, a divisor of all periods.

    For each other number of steps in a call there is another program to compile.
    """
    common = math.gcd(*periods)
    divisors = (n for n in range(STEPS_PER_CALL, 9, -1) if common % n == 0)
    return next(divisors, STEPS_PER_CALL)


def keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Keys of a seed's initial weights and of its steps."""
    weights, steps = jax.random.split(jax.random.key(seed))
    return weights, steps


def load_pretrained(fresh: TrainState, folder: Path) -> TrainState:
    """The training state `fresh` with the weights of another run's last whole checkpoint.

    The classifier stays `fresh`: its classes are this run's.

    Raises:
      InputError: there is no such checkpoint, or a weight has another shape.
    """
    own = fresh.variables
    try:
        theirs = load_weights(folder / "checkpoints").variables
        theirs["params"]["classifier"] = own["params"]["classifier"]
        check_shapes(theirs, own)
    except InputError as error:
        raise InputError(f"init_from={str(folder)!r}: {error}") from error
    taken = jax.tree.map(lambda mine, given: jnp.asarray(given, mine.dtype), own, theirs)
    return fresh.replace(params=taken["params"], batch_stats=taken["batch_stats"])


class Data(NamedTuple):
    """A run's devices and the images on them; see `Experiment`."""

    mesh: jax.sharding.Mesh
    splits: dict[str, Split]
    class_names: tuple[str, ...]


def build(recipe: Recipe, data: Data | None = None) -> Experiment:
    """Makes a recipe's objects, around `data` that are there already or else are loaded.

    Raises:
      InputError: the data cannot be loaded, or do not suit the recipe or the devices.
    """
    data, optimizer = data or load_data(recipe), recipe.optimizer
    return Experiment(
        recipe=recipe,
        model=ResNet(
            recipe.architecture,
            jnp.dtype(recipe.model.dtype),
            num_classes=len(data.class_names),
            remat=recipe.remat,
            # Frozen parts and layers are known by their blocks' names, which a loop's lack.
            scan_blocks=bool(recipe.scan_blocks)
            and not recipe.freeze
            and optimizer.layer_decay == 1,
        ),
        optimizer=step.sgd(**dataclasses.asdict(optimizer), frozen=recipe.frozen_parts),
        schedule=schedules.Schedule.of(recipe),
        **data._asdict(),
    )


def make_mesh(recipe: Recipe) -> jax.sharding.Mesh:
    """The devices that a run has here.

    Raises:
      InputError: there are not as many, or they, or JAX's own options, do not suit the recipe.
    """
    setup.check_float32()
    num_groups = recipe.part_size // recipe.bn_group_size
    mesh = parallel.make_mesh(
        recipe.part_size, num_groups, recipe.num_devices, num_parts=recipe.grad_accum_steps
    )
    if recipe.parallel == "pmap":
        stochastic = recipe.architecture.is_stochastic
        parallel.check_pmap(mesh, num_groups=num_groups, stochastic=stochastic)
    return mesh


def with_random_data(
    recipe: Recipe, shape: Sequence[int], num_classes: int, num_examples: int
) -> Experiment:
    """An experiment on random images [height, width, channels], to see how fast it runs."""
    mesh = make_mesh(recipe)
    random = np.random.default_rng(0)
    images = random.integers(256, size=(num_examples, *shape), dtype=np.uint8)
    labels = random.integers(num_classes, size=num_examples, dtype=np.int32)
    statistics = device_dataset.normalization(images, "channel")
    padding, flip = recipe.dataset.crop_padding, recipe.dataset.flip
    noise = device_dataset.DeviceDataset(images, labels, statistics, padding, flip)
    noise = parallel.device_put_global(noise, parallel.replicated(mesh))
    names = tuple(map(str, range(num_classes)))
    return build(recipe, Data(mesh, {"train": noise, "test": noise}, names))


def load_data(
    recipe: Recipe,
    statistics: device_dataset.Normalization | None = None,
    only: Collection[str] = SPLITS,
) -> Data:
    """The recipe's splits, normalised as the training split is, and its classes.

    Args:
      recipe: of the run.
      statistics: of the training images as the run first saw them; None computes them.
      only: which of "train", "validation" and "test"; "train" among them without `statistics`.

    Raises:
      InputError: they cannot be loaded, or do not suit the recipe or the devices.
    """
    mesh, dataset, section = make_mesh(recipe), recipe.dataset, recipe.streaming
    named = {name: split for name in SPLITS if name in only and (split := getattr(dataset, name))}
    sources: dict[str, Any] = {n: source(dataset, s, bool(section)) for n, s in named.items()}
    seen = _glance if section else _bytes
    multihost.same_everywhere("dataset", lambda: b"".join(map(seen, sources.values())))
    statistics = statistics or normalization(recipe, sources["train"])
    as_bytes = lambda: b"".join(np.asarray(part).tobytes() for part in statistics)
    multihost.same_everywhere("normalization", as_bytes)
    class_names, place = next(iter(sources.values())).class_names, parallel.replicated(mesh)
    splits: dict[str, Split]
    if not section:
        splits = {
            name: parallel.device_put_global(
                device_dataset.DeviceDataset(
                    part.images, part.labels, statistics, dataset.crop_padding, dataset.flip
                ),
                place,
            )
            for name, part in sources.items()
        }
        return Data(mesh, splits, class_names)
    receiver = streaming.Receiver(statistics, section.pca_lighting_std)
    receiver = parallel.device_put_global(receiver, place)
    splits = {
        name: streaming.Stream(
            part,
            receiver,
            augmentation=section.augmentation,
            crops=crop_config(recipe),
            rows=parallel.local_indices(mesh, recipe.batch_size),
            num_workers=section.num_workers,
            upright=bool(dataset.exif_orientation),
        )
        for name, part in sources.items()
    }
    return Data(mesh, splits, class_names)


def source(dataset: Dataset, split: str, streamed: bool) -> datasets.Examples | Records:
    """A split's examples, or, of a data set that is streamed, its records."""
    if streamed:
        return datasets.open_records(dataset.name, split, dataset.data_dir)
    return datasets.load(
        dataset.name,
        split,
        data_dir=dataset.data_dir,
        image_size=dataset.image_size,
        upright=bool(dataset.exif_orientation),
    )


def kept_statistics(workdir: Path) -> device_dataset.Normalization | None:
    """Those of the run's training images as it first saw them; None for runs of earlier versions.

    Raises `InputError` if their file is damaged.
    """
    path = workdir / STATISTICS
    return device_dataset.Normalization.load(path) if path.exists() else None


def normalization(
    recipe: Recipe, training: datasets.Examples | Records
) -> device_dataset.Normalization:
    """Statistics of the training split; of a streamed one, of its centre crops."""
    how = recipe.dataset.mean, recipe.dataset.std
    if isinstance(training, datasets.Examples):
        return device_dataset.normalization(training.images, *how)
    return streaming.normalization(training, crop_config(recipe), *how)


def crop_config(recipe: Recipe) -> CropConfig:
    """How images become squares."""
    section, size = recipe.streaming, recipe.dataset.image_size
    assert section  # Only a stream's are asked for.
    assert size  # A stream's config has one.
    return CropConfig(
        size=size,
        scales=(section.scales[0], section.scales[1]),
        shorter_side=section.shorter_side,
        flip=recipe.dataset.flip,
    )


def _bytes(part: datasets.Examples) -> bytes:
    return part.images.tobytes() + part.labels.tobytes()


def _glance(part: Records) -> bytes:
    """What differs between copies of a split that are not the same, without reading them whole."""
    seen = [part[i] for i in (0, len(part) // 2, len(part) - 1)]
    return repr((len(part), part.class_names, seen)).encode()
