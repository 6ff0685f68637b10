"""A run's recipe: its config, resolved once into frozen, typed values that have checked themselves.

A config enters at `Recipe.from_config`; nothing behind it sees a ConfigDict, parses a model's name
or repeats a default. Loads no JAX, so that a wrong config fails at once: what may be chosen is
listed here, and a test compares the lists with what the library implements.
"""

import contextlib
import dataclasses
import functools
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.architecture import BLOCKS, Architecture
from resnet_jax.runs.arguments import expand_home
from resnet_jax.runs.folder import read_run

DTYPES = ("float32", "bfloat16")
ENGINES = ("jit", "pmap")
REMATS = ("none", "activations", "blocks")
MEANS = ("pixel", "channel", "none", "imagenet")
COLOR_MEANS = MEANS[1:]  # the same at all positions, as streams need them
STDS = ("channel", "none", "imagenet")
AUGMENTATIONS = ("scale", "random_resized_crop", "centre")
WEIGHT_DECAY_MASKS = ("kernels", "all")
SCHEDULES = ("steps", "plateau", "cosine", "constant")
WARMUPS = ("none", "constant", "linear", "until_error")
LOGGERS = ("tensorboard", "wandb")
BATCH_NORM = "batch_norm"  # of `freeze`: all batch norms

MAX_SEED = 2**32 - 1
"""`jax.random.key` takes 32 bits: a larger seed would be another one's twin."""

RUNTIME_FIELDS = (
    *("num_devices", "parallel", "steps_per_dispatch", "deterministic", "onednn"),
    *("remat", "scan_blocks"),
    *("max_to_keep", "save_timeout", "loggers", "dataset.data_dir", "streaming.num_workers"),
)
"""Where and how a run is computed, not what: it may resume under other values of these, and a
report does not count them as differences."""

LEGACY_DEFAULTS: dict[str, Any] = {
    "parallel": "jit",
    "save_timeout": 600,
    "deterministic": False,
    "onednn": False,
    "remat": "none",
    "scan_blocks": False,
    "init_from": None,
    "freeze": None,
    "converted_from": None,
    "loggers": "tensorboard",
    "dataset.exif_orientation": False,
    "model.initialization": None,
    "model.parameterization": None,
    "model.tat_eta": None,
    "optimizer.max_grad_norm": None,
    "optimizer.layer_decay": 1.0,
}
"""What stood for a field in runs that are older than it. A new field gets its line here."""


_Range = tuple[str, Callable[[Any], bool]]
_FROM_1: _Range = ("must be at least 1", lambda value: value >= 1)
_FROM_0: _Range = ("must not be negative", lambda value: value >= 0)
_ABOVE_0: _Range = ("must be above 0", lambda value: value > 0)
_BELOW_1: _Range = ("must be in [0, 1)", lambda value: 0 <= value < 1)
_SEED: _Range = (f"must be at most {MAX_SEED}", lambda value: value <= MAX_SEED)


def _field(meaning: str, *ranges: _Range, choices: Sequence[str] | None = None) -> Any:
    """A field: what it means, and what it must be unless it is None."""
    return dataclasses.field(metadata={"meaning": meaning, "ranges": ranges, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Model:
    """The network: its name, and the axes of `Architecture` that differ from what that stands for.

    None is what the name stands for; `bn_group_size=None` is all that goes
    through the network together: `batch_size` / `grad_accum_steps`.
    """

    name: str = _field("plain-N, resnet-N or preact-resnet-N")
    bn_group_size: int | None = _field("examples that share batch-norm statistics; none: the batch")
    dtype: str = _field("of activations: float32 or bfloat16", choices=DTYPES)
    block: str | None = _field("basic, bottleneck or one_layer")
    shortcut: str | None = _field("what stands on the shortcut (v2 Table 1); none: a plain network")
    option: str | None = _field("A, B or C: shortcuts where the shape changes (v1 §3.3)")
    option_a_padding: str | None = _field("end or both: where option A adds channels")
    order: str | None = _field("of normalisation, activation and addition (v2 Table 2)")
    norm: str | None = _field("batch or none")
    activation: str | None = _field("relu, or another")
    width: int | None = _field("channels of the first stage")
    downsample_in: str | None = _field("1x1 or 3x3: the bottleneck's convolution that strides")
    initialization: str | None = _field("of convolutions")
    parameterization: str | None = _field("of blocks' convolutions: standard, dirac or repvgg")
    zero_init_last: bool | None = _field("whether each branch's last batch norm starts at 0")
    shortcut_scale: float | None = _field("with shortcut=constant_scaling; 0: plain")
    branch_scale: float | None = _field("with shortcut=constant_scaling")
    gate_bias: float | None = _field("initial bias of gates")
    dropout_rate: float | None = _field("with shortcut=dropout")
    tat_eta: float | None = _field("with activation=tailored_relu")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data set, its splits, and how images are normalised and augmented."""

    name: str = _field("digits, image_folder, or a set of TFDS")
    data_dir: str | None = _field("the image folder, or the folder of TFDS's data sets")
    image_size: int | None = _field("side in pixels, where images vary in size", _FROM_1)
    train: str = _field("training split, in TFDS's syntax: train[:45000]")
    validation: str | None = _field("split that the schedule may watch")
    test: str | None = _field("test split; it chooses nothing")
    mean: str = _field("subtracted: pixel, channel, none or imagenet")
    std: str = _field("divided by: channel, none or imagenet", choices=STDS)
    crop_padding: int = _field("pixels added to each side before a random crop", _FROM_0)
    flip: bool = _field("whether training images are mirrored at random")
    exif_orientation: bool | None = _field(
        "whether images are turned as EXIF says; none: if they are one's own"
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """SGD with momentum (v1 §3.4)."""

    momentum: float = _field("in [0, 1)", _BELOW_1)
    nesterov: bool = _field("Nesterov's momentum")
    weight_decay: float = _field("L2 weight decay", _FROM_0)
    weight_decay_mask: str = _field("what decays: kernels or all", choices=WEIGHT_DECAY_MASKS)
    max_grad_norm: float | None = _field(
        "longer gradients are cut to it; none: no clipping", _ABOVE_0
    )
    layer_decay: float = _field(
        "a layer's learning rate, over that of the layer above it", _ABOVE_0
    )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate, see `training.schedules.Schedule`."""

    name: str = _field("steps, plateau, cosine or constant")
    learning_rate: float = _field("before any drop")
    boundaries: tuple[int | float, ...] = _field("drops: steps, or fractions of num_steps")
    decay_factor: float = _field("of each drop")
    patience: int = _field("evaluations without progress before plateau drops the learning rate")
    warmup: str = _field("none, constant, linear or until_error (v1 §4.2)")
    warmup_steps: int = _field("length of a constant or linear warm-up")
    warmup_learning_rate: float = _field("of a constant or until_error warm-up")
    warmup_error: float = _field("training error that ends until_error, a fraction")


_USED_WITH = {
    "schedule.boundaries": ("schedule.name", ("steps",)),
    "schedule.decay_factor": ("schedule.name", ("steps", "plateau")),
    "schedule.patience": ("schedule.name", ("plateau",)),
    "schedule.warmup_steps": ("schedule.warmup", ("constant", "linear")),
    "schedule.warmup_learning_rate": ("schedule.warmup", ("constant", "until_error")),
    "schedule.warmup_error": ("schedule.warmup", ("until_error",)),
    "streaming.scales": ("streaming.augmentation", ("scale",)),
}
"""Fields that have an effect only while another one has one of some values."""


def is_used(path: str, flat: Mapping[str, Any]) -> bool:
    """Whether a flat config's field has an effect; yes where what decides that is not stated."""
    kind, kinds = _USED_WITH.get(path, (path, ()))
    return kind == path or flat.get(kind) in (None, *kinds)


def as_fractions(boundaries: Sequence[int | float], num_steps: float) -> list[float]:
    """A schedule's boundaries, which may be steps, as parts of the run."""
    return [b / num_steps if isinstance(b, int) else b for b in boundaries]


@dataclasses.dataclass(frozen=True)
class Streaming:
    """How images are read that do not fit the devices' memory."""

    augmentation: str = _field(
        "scale (v1 §3.4), random_resized_crop (Inception's) or centre", choices=AUGMENTATIONS
    )
    scales: tuple[int, ...] = _field("lowest and highest shorter side of augmentation=scale")
    shorter_side: int = _field("of test images, in pixels")
    pca_lighting_std: float = _field("standard deviation of AlexNet's colour noise", _FROM_0)
    num_workers: int | None = _field("processes that decode; none: one a core", _FROM_0)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides a run, and where it is computed (`RUNTIME_FIELDS`).

    Its attributes have the paths of the config's fields: `recipe.schedule.learning_rate`.

    Attributes:
      architecture: what `model` resolves to.

    Raises:
      InputError: with one line on the first value that cannot work.
    """

    model: Model
    dataset: Dataset
    optimizer: Optimizer
    schedule: Schedule
    streaming: Streaming | None
    seed: int = _field(
        "of the initial weights, the order of examples and all that is random", _FROM_0, _SEED
    )
    batch_size: int = _field("examples a step", _FROM_1)
    num_steps: int = _field("length of the run", _FROM_1)
    grad_accum_steps: int = _field("parts in which a batch is computed, one after another", _FROM_1)
    label_smoothing: float = _field("in [0, 1)", _BELOW_1)
    log_every: int = _field("steps between rows of training metrics", _FROM_1)
    evaluate_every: int = _field("steps between evaluations", _FROM_1)
    checkpoint_every: int = _field("steps between checkpoints", _FROM_1)
    max_to_keep: int = _field("checkpoints that are kept", _FROM_1)
    save_timeout: int = _field("seconds after which a save hangs, and the run ends", _FROM_1)
    loggers: str = _field("copies of metrics.jsonl: tensorboard, wandb, tensorboard,wandb or none")
    init_from: str | None = _field("run whose weights, but the classifier's, are the first")
    freeze: str | None = _field("parts that are not trained: stem+stage1+batch_norm")
    converted_from: str | None = _field("file of weights, of a run of experiments.convert")
    num_devices: int | None = _field("none: as many as can share a batch", _FROM_1)
    steps_per_dispatch: int | None = _field("steps per call; none: many on accelerators", _FROM_1)
    parallel: str = _field("jit or pmap", choices=ENGINES)
    deterministic: bool = _field("on GPUs: bitwise identical at every start, but slower")
    remat: str = _field(
        "none, activations or blocks: computed twice, to save memory", choices=REMATS
    )
    scan_blocks: bool | None = _field(
        "blocks that are alike in one loop, compiled once; none: above 200 layers, and with "
        "parameterization=dirac or repvgg"
    )
    onednn: bool = _field("on CPUs: faster, but compiled anew at every start")
    architecture: Architecture = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        with section("model"):
            resolved = zoo.describe(self.model.name, **self.model_overrides)
        object.__setattr__(self, "architecture", resolved)
        if self.dataset.exif_orientation is None:
            dataset = dataclasses.replace(self.dataset, exif_orientation=self.has_own_images)
            object.__setattr__(self, "dataset", dataset)
        if self.scan_blocks is None:
            # XLA:CPU of JAX 0.10 fuses chains of identity branches: RepVGG-56 ran 24 times slower.
            looped = resolved.depth > 200 or resolved.parameterization != "standard"
            object.__setattr__(self, "scan_blocks", looped)
        _check(self)

    @property
    def has_own_images(self) -> bool:
        """Whether images may be as cameras store them: an image folder's, a stream's, or those of a
        set whose images vary in size; but not ImageNet's.
        """
        name, dataset = plain_name(self.dataset.name), self.dataset
        of_any_size = dataset.image_size is not None or self.streaming is not None
        return name == "image_folder" or (of_any_size and name != "imagenet2012")

    @classmethod
    def from_config(cls, config: ConfigDict | Mapping[str, Any]) -> "Recipe":
        """The recipe of a config, with `LEGACY_DEFAULTS` for what it lacks.

        Raises:
          InputError: a field is missing, unknown or of another type, or its value cannot work.
        """
        values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
        return _section(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """Nested fields, as config.json has them."""
        values = dataclasses.asdict(self)
        del values["architecture"]
        absent = [name for name in ("streaming", "converted_from") if values[name] is None]
        return {name: value for name, value in values.items() if name not in absent}

    def replace(self, **fields: Any) -> "Recipe":
        """The recipe with other values, by path: `replace(**{"model.norm": "none"})`."""
        values = self.to_dict()
        for path, value in fields.items():
            *sections, name = path.split(".")
            part = functools.reduce(lambda part, key: part[key], sections, values)
            part[name] = value
        return Recipe.from_config(values)

    @property
    def bn_group_size(self) -> int:
        """Examples that share batch-norm statistics; 1 if there are none to share."""
        if self.architecture.norm == "none":
            return 1
        return self.model.bn_group_size or self.part_size

    @property
    def part_size(self) -> int:
        """Examples that go through the network together."""
        return self.batch_size // self.grad_accum_steps

    @property
    def model_overrides(self) -> dict[str, Any]:
        """The axes of the architecture that the config sets itself, `bn_group_size` among them."""
        fields = dataclasses.asdict(self.model)
        return {
            name: value
            for name, value in fields.items()
            if name not in ("name", "dtype") and (value is not None or name == "bn_group_size")
        }

    @property
    def frozen_parts(self) -> frozenset[str]:
        """The parts that `freeze` names, such as {"stem", "stage1", "batch_norm"}."""
        return parse_freeze(self.freeze, self.architecture)

    @property
    def logger_names(self) -> tuple[str, ...]:
        """What `loggers` names, such as ("tensorboard", "wandb"); () for "none"."""
        names = tuple(dict.fromkeys(name.strip() for name in self.loggers.split(",")))
        return () if names == ("none",) else names

    def notes(self) -> list[str]:
        """Lines on what works but may not be meant."""
        size, schedule, lines = _image_size(self), self.schedule, []
        if self.architecture.stem == "imagenet" and size and size < 64:
            near = min(zoo.CIFAR_DEPTHS, key=lambda depth: abs(depth - self.architecture.depth))
            lines.append(
                f"model.name={self.model.name!r} is an ImageNet network: its 7×7 stem and strides "
                f"leave {max(size // 32, 1)}×{max(size // 32, 1)} of {size}×{size} images; the "
                f"CIFAR network of about that depth is resnet-{near}"
            )
        lines += _notes_on_crops(self)
        if self.dataset.flip and plain_name(self.dataset.name) in _OF_DIGITS_AND_LETTERS:
            lines.append(f"dataset.flip=True mirrors {self.dataset.name}, and a mirrored 2 is none")
        if self.architecture.depth >= 110 and schedule.warmup == "none" and not self.streaming:
            lines.append(
                f"schedule.warmup='none' with {self.architecture.depth} layers, for which v1 §4.2 "
                "warms up; a config that is given the network after its colon does, too"
            )
        if self.freeze and not self.init_from:
            lines.append(
                f"freeze={self.freeze!r} without init_from keeps parts as they are drawn; batch "
                "norms among them do not normalise"
            )
        if self.scan_blocks and (self.freeze or self.optimizer.layer_decay != 1):
            field = "freeze" if self.freeze else "optimizer.layer_decay"
            lines.append(
                f"scan_blocks=True has no effect with {field}={self.used[field]!r}, which tells "
                "blocks apart: each is compiled by itself"
            )
        if schedule.warmup in ("constant", "linear") and schedule.warmup_steps >= self.num_steps:
            lines.append(
                f"schedule.warmup_steps={schedule.warmup_steps} do not end within num_steps="
                f"{self.num_steps}: the learning rate never reaches {schedule.learning_rate:g}"
            )
        first_drop = (schedule.patience + 1) * self.evaluate_every
        if schedule.name == "plateau" and first_drop >= self.num_steps:
            lines.append(
                f"schedule.patience={schedule.patience}: with evaluate_every={self.evaluate_every} "
                f"the learning rate cannot drop within num_steps={self.num_steps}"
            )
        return lines

    @property
    def used(self) -> dict[str, Any]:
        """The fields that have an effect, by path."""
        flat = {path: value for path, _, _, value in _leaves(self)}
        return {path: value for path, value in flat.items() if is_used(path, flat)}

    def without_effect(self, given: Iterable[str]) -> list[str]:
        """A line on each of the given fields, as "schedule.patience", that the others leave unused.

        Those of the network that would be so are refused instead, as no config sets them.
        """
        used, lines = self.used, []
        for path in given:
            kind = _USED_WITH.get(path, ("",))[0]
            if kind in used and path not in used:
                lines.append(f"{path}: has no effect with {kind}={used[kind]!r}")
        return lines


def _notes_on_crops(recipe: Recipe) -> list[str]:
    """A line on crops of a stream that are small parts of its images, where one meant small images.

    In v1 §3.4 crops of 224² are cut from images whose shorter side is at least 256.
    """
    stream, size = recipe.streaming, recipe.dataset.image_size
    if not stream or not size:
        return []
    sides = {f"shorter_side={stream.shorter_side}": stream.shorter_side}
    if stream.augmentation == "scale":
        sides[f"scales={stream.scales}"] = stream.scales[0]
    large = {field: side for field, side in sides.items() if side >= 1.5 * size}
    if not large:
        return []
    low, high = (round(side * size / 224) for side in (256, 480))
    return [
        f"streaming.{', '.join(large)}: crops of dataset.image_size={size} show at most "
        f"{(size / min(large.values())) ** 2:.0%} of a square image; in v1's proportion: "
        f"shorter_side={low}, scales=({low}, {high})"
    ]


def plain_name(dataset: str) -> str:
    """A data set's name without the config and the version that TFDS writes behind it."""
    return re.split("[:/]", dataset, maxsplit=1)[0]


def blank(kind: Any = Recipe) -> ConfigDict:
    """A config with all fields, each None and of its type; optional sections are left out."""
    config, hints = ConfigDict(), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        wanted = typing.get_origin(hint) or hint
        if wanted is types.UnionType:
            wanted = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(hint) and field.init:
            config[field.name] = blank(hint)
        elif "meaning" in field.metadata and field.name != "converted_from":
            config[field.name] = placeholder(wanted)
    return config


def load_recipe(workdir: Path) -> Recipe:
    """The recipe of an existing run.

    Raises:
      InputError: there is none, or its config is damaged.
    """
    run = read_run(workdir)
    damaged = [problem for problem in run.problems if problem.startswith("config.json")]
    if damaged and run.status != "missing":
        raise InputError(f"workdir={str(workdir)!r}: {damaged[0]}")
    if not run.config:
        inside = [path.parent.name for path in sorted(workdir.glob("*/config.json"))]
        hint = f"; name one of those in it: {', '.join(inside[:3])}" if inside else ""
        hint += ", …" if len(inside) > 3 else ""
        raise InputError(f"workdir={str(workdir)!r}: no run in this folder (no config.json){hint}")
    config = dict(run.config)
    if isinstance(config.get("remat"), bool):  # in runs of earlier versions
        config["remat"] = "blocks" if config["remat"] else "none"
    try:
        return Recipe.from_config(config)
    except InputError as error:
        raise InputError(f"{workdir / 'config.json'}: {error}") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines "field: old, now new" for the fields of two configs that say what is computed."""
    lines = []
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        default = LEGACY_DEFAULTS.get(path)
        before, after = old.get(key, default), new.get(key, default)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{path}.")
        elif before != after and path not in RUNTIME_FIELDS:
            lines.append(f"{path}: {before!r}, now {after!r}")
    return lines


def describe_fields(recipe: Recipe) -> list[tuple[str, str, Any, str]]:
    """Path, type, value and meaning of every field of a recipe."""
    text = lambda hint: hint.__name__ if isinstance(hint, type) else str(hint)
    return [
        (path, text(hint), value, field.metadata["meaning"])
        for path, field, hint, value in _leaves(recipe)
    ]


def _leaves(part: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any, Any]]:
    """Path, field, type and value of what is no section."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        path, value = f"{prefix}{field.name}", getattr(part, field.name)
        if dataclasses.is_dataclass(value) and field.init:
            yield from _leaves(value, f"{path}.")
        elif "meaning" in field.metadata:
            yield path, field, hints[field.name], value


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
    """Puts the config's section before the field that an error names."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}.{error}") from error


def check_schedule(schedule: Any, num_steps: int) -> None:
    """Raises `InputError` unless a learning rate's fields, those of `Schedule`, can work."""
    check_choice("name", schedule.name, SCHEDULES)
    check_choice("warmup", schedule.warmup, WARMUPS)
    for field in (
        *("learning_rate", "decay_factor", "warmup_learning_rate"),
        *("warmup_error", "patience"),
    ):
        if not getattr(schedule, field) > 0:
            raise InputError(f"{field}={getattr(schedule, field)!r}: must be above 0")
    if schedule.warmup in ("constant", "linear") and schedule.warmup_steps < 1:
        raise InputError(
            f"warmup_steps={schedule.warmup_steps}: must be at least 1 with "
            f"warmup={schedule.warmup!r}"
        )
    if schedule.decay_factor >= 1:
        raise InputError(f"decay_factor={schedule.decay_factor!r}: must be below 1")
    if schedule.warmup_error > 1:
        raise InputError(f"warmup_error={schedule.warmup_error!r}: a fraction, at most 1")
    boundaries, steps = tuple(schedule.boundaries), []
    for boundary in boundaries:
        fraction = isinstance(boundary, float)
        number = fraction or isinstance(boundary, int)
        if not (number and boundary > 0 and (boundary < 1 or not fraction)):
            raise InputError(
                f"boundaries={boundaries}: {boundary!r} is neither a step (a whole number above "
                "0) nor a fraction of num_steps (between 0 and 1)"
            )
        if not fraction and boundary >= num_steps and schedule.name == "steps":
            raise InputError(
                f"boundaries={boundaries}: step {boundary:,} is not within num_steps="
                f"{num_steps:,}; fractions, as (0.5,0.75), fit any length"
            )
        steps.append(boundary * num_steps if fraction else boundary)
    if steps != sorted(steps):
        raise InputError(f"boundaries={boundaries}: must be in ascending order")


def freezable_parts(architecture: Architecture) -> tuple[str, ...]:
    """What of a network can be frozen. Its classifier cannot: nothing would be left to learn."""
    stages = (f"stage{number}" for number in range(1, len(architecture.stage_sizes) + 1))
    return ("stem", *stages, *((BATCH_NORM,) if architecture.norm == "batch" else ()))


def parse_freeze(text: str | None, architecture: Architecture) -> frozenset[str]:
    """The parts named by "stem+stage1+batch_norm"; none for None.

    Raises:
      InputError: the network has no such part.
    """
    names = frozenset(text.split("+")) if text else frozenset()
    for name in sorted(names):
        check_choice("freeze", name, freezable_parts(architecture))
    return names


# --- from a config's nested values to typed ones


def _section(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    unknown = sorted(set(values) - set(names))
    if unknown:
        check_choice("config field", f"{prefix}{unknown[0]}", [f"{prefix}{n}" for n in names])
    found = {}
    for name in names:
        path = f"{prefix}{name}"
        value = values.get(name, LEGACY_DEFAULTS.get(path))
        found[name] = _typed(path, hints[name], value)
    return kind(**found)


_WANTED: dict[Any, str] = {
    **{int: "a whole number, such as 1000", float: "a number", str: "text"},
    **{bool: "true or false", type(None): "none"},
}


def _typed(path: str, hint: Any, value: Any) -> Any:
    """The value in the field's type; paths with their "~" expanded."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    for kind in kinds:
        if type(value) is kind and kind is not float:
            return expand_home(value) if kind is str else value
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise InputError(f"{path}={value!r}: must be finite")
            return float(value)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return _section(kind, value, f"{path}.")
        if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(_typed(path, typing.get_args(kind)[0], item) for item in value)
    if dataclasses.is_dataclass(kinds[0]):
        raise InputError(f"config: has no section {path!r}")
    wanted = [_WANTED.get(kind, "a list of numbers, such as (0.5,0.75)") for kind in kinds]
    raise InputError(f"{path}={value!r}: must be {' or '.join(wanted)}")


# --- what can be wrong with it


def _check(recipe: Recipe) -> None:
    for path, field, _, value in _leaves(recipe):
        for message, allowed in field.metadata["ranges"]:
            if value is not None and not allowed(value):
                raise InputError(f"{path}={value!r}: {message}")
        if field.metadata["choices"] is not None:
            check_choice(path, value, field.metadata["choices"])
    check_choice("dataset.mean", recipe.dataset.mean, COLOR_MEANS if recipe.streaming else MEANS)
    for name in recipe.logger_names:
        check_choice("loggers", name, LOGGERS)
    parse_freeze(recipe.freeze, recipe.architecture)
    _check_memory(recipe)
    _check_groups(recipe)
    _check_dataset(recipe)
    with section("schedule"):
        check_schedule(recipe.schedule, recipe.num_steps)


def _check_groups(recipe: Recipe) -> None:
    if recipe.batch_size % recipe.grad_accum_steps:
        raise InputError(
            f"batch_size={recipe.batch_size}: not a multiple of "
            f"grad_accum_steps={recipe.grad_accum_steps}"
        )
    part, group = recipe.part_size, recipe.bn_group_size
    if part % group:
        sizes = (size for size in range(1, part + 1) if part % size == 0)
        fitting = min(sizes, key=lambda size: abs(math.log(size / group)))
        raise InputError(
            f"model.bn_group_size={group}: batches of {part} (batch_size / grad_accum_steps) "
            "are not a whole number of batch-norm groups; set "
            f"model.bn_group_size={fitting}, or batch_size to a multiple of "
            f"{group * recipe.grad_accum_steps}"
        )


def _check_dataset(recipe: Recipe) -> None:
    dataset, stream, size = recipe.dataset, recipe.streaming, recipe.dataset.image_size
    if not dataset.train:
        raise InputError(f"dataset.train={dataset.train!r}: a run needs a training split")
    if recipe.schedule.name == "plateau" and not dataset.validation:
        raise InputError(
            "dataset.validation=None: schedule.name='plateau' needs a split to watch, for example "
            "dataset.train='train[:90%]', dataset.validation='train[90%:]'; the test set "
            "chooses nothing"
        )
    if stream is None:
        return
    if size is None:
        raise InputError("dataset.image_size=None: a stream needs the side of crops, such as 224")
    if dataset.crop_padding:
        raise InputError(
            f"dataset.crop_padding={dataset.crop_padding}: a stream's crops are cut out of larger "
            "images (streaming.augmentation) and not padded; set 0"
        )
    sides = stream.scales
    if len(sides) != 2 or sides[0] > sides[1]:
        raise InputError(f"streaming.scales={sides}: wanted two lengths in pixels, the lower first")
    for field, side in (("scales", sides[0]), ("shorter_side", stream.shorter_side)):
        if side < size and (field != "scales" or stream.augmentation == "scale"):
            raise InputError(
                f"streaming.{field}={getattr(stream, field)}: too small for crops of "
                f"dataset.image_size={size}"
            )


_OF_DIGITS_AND_LETTERS = ("digits", "mnist", "kmnist", "emnist", "svhn_cropped")
_SIZES = {
    **{"digits": 8, "mnist": 28, "fashion_mnist": 28, "kmnist": 28, "emnist": 28},
    **{"cifar10": 32, "cifar100": 32, "svhn_cropped": 32},
}


def _image_size(recipe: Recipe) -> int | None:
    return recipe.dataset.image_size or _SIZES.get(plain_name(recipe.dataset.name))


def _check_memory(recipe: Recipe) -> None:
    """Refuses what no machine like this one could hold, from bounds that are easily exceeded."""
    net = recipe.architecture
    convolutions = BLOCKS[net.block]
    side = (_image_size(recipe) or 28) / (4 if net.stem == "imagenet" else 1)
    weights = kept = 0.0
    for stage, blocks in enumerate(net.stage_sizes):
        channels = net.width * 2**stage
        weights += blocks * convolutions * channels**2
        kept += blocks * convolutions * channels * max(side / 2**stage, 1) ** 2
    item = 2 if recipe.model.dtype == "bfloat16" else 4
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    # Weights, gradients and momentum are on every device, and the host copies them to save them.
    for what, needed, there in (
        ("its weights, gradients and momentum", 3 * 4 * weights / 1e9, gigabytes),
        # Many devices may share a batch, and `remat` keeps less.
        ("a batch's activations", recipe.part_size * kept * item / 1e9, 16 * gigabytes),
    ):
        if needed > there:
            raise InputError(
                f"model.name={recipe.model.name!r}, model.width={net.width}, "
                f"batch_size={recipe.batch_size}: {what} alone take about {needed:,.0f} GB, and "
                f"this machine has {gigabytes:,.0f} GB"
            )
