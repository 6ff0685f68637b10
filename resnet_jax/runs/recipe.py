"""Is this config one that can run? Answered before anything slow begins."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.data import crops, datasets, records
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.architecture import Architecture
from resnet_jax.runs import WHERE_NOT_WHAT, read_run

_OPTIONAL = ("num_devices", "steps_per_dispatch", "dataset.image_size")

DTYPES = ("float32", "bfloat16")

_SECTIONS = ("model", "dataset", "optimizer", "schedule")

ADDED = {
    **{"parallel": "jit", "deterministic": False, "onednn": False, "remat": "none"},
    "scan_blocks": False,
    "init_from": None,
    "freeze": None,
}
"""Fields that configs of earlier versions lack, and what stood for them."""


def check(config: ConfigDict, *, prepared: bool = True) -> None:
    """Raises `InputError` with one line on the first thing that cannot work.

    Args:
      prepared: whether its data set must be there.
    """
    _check_finite(config)
    for field in (
        *("batch_size", "num_steps", "grad_accum_steps"),
        *("log_every", "evaluate_every", "checkpoint_every", "max_to_keep"),
    ):
        _require(config, field, lambda value: value >= 1, "must be at least 1")
    for field in _OPTIONAL:
        _require(config, field, lambda value: value is None or value >= 1, "must be at least 1")
    for field in ("seed", "dataset.crop_padding", "optimizer.weight_decay"):
        _require(config, field, lambda value: value >= 0, "must not be negative")
    for field in ("optimizer.momentum", "label_smoothing"):
        _require(config, field, lambda value: 0 <= value < 1, "must be in [0, 1)")
    with section("model"):
        check_choice("dtype", config.model.dtype, DTYPES)
        architecture(config)
    _check_groups(config)
    _check_dataset(config, prepared)
    # From here on JAX is loaded, which takes most of a second.
    from resnet_jax.data import device_dataset
    from resnet_jax.models import resnet
    from resnet_jax.runtime import parallel
    from resnet_jax.training import freezing, schedules, step

    freezing.parse(config.freeze, architecture(config))
    check_choice("parallel", config.parallel, parallel.ENGINES)
    check_choice("remat", config.remat, resnet.REMATS)
    with section("dataset"):
        means = device_dataset.COLOR_MEANS if "streaming" in config else device_dataset.MEANS
        check_choice("mean", config.dataset.mean, means)
        check_choice("std", config.dataset.std, device_dataset.STDS)
    with section("optimizer"):
        check_choice("weight_decay_mask", config.optimizer.weight_decay_mask, step.DECAYS)
    with section("schedule"):
        schedules.Schedule(num_steps=config.num_steps, **config.schedule)


def load_config(workdir: Path) -> ConfigDict:
    """The config of an existing run.

    Raises:
      InputError: there is none, or its config is damaged.
    """
    run = read_run(workdir)
    damaged = [problem for problem in run.problems if problem.startswith("config.json")]
    if damaged and run.status != "missing":
        raise InputError(f"workdir={str(workdir)!r}: {damaged[0]}")
    if not run.config:
        raise InputError(f"workdir={str(workdir)!r}: no run in this folder (no config.json)")
    missing = [name for name in _SECTIONS if not isinstance(run.config.get(name), dict)]
    if missing:
        raise InputError(f"{workdir / 'config.json'}: has no section {missing[0]!r}")
    config = {**ADDED, **run.config}
    if isinstance(config["remat"], bool):  # in configs of earlier versions
        config["remat"] = "blocks" if config["remat"] else "none"
    return ConfigDict(config)


def architecture(config: ConfigDict) -> Architecture:
    """The architecture that `config.model` names, with its overrides."""
    return zoo.describe(config.model.name, **model_overrides(config))


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """The axes that the config sets itself; the model's name stands for the others."""
    fields = {k: v for k, v in config.model.items() if k not in ("name", "dtype")}
    return {k: v for k, v in fields.items() if v is not None or k == "bn_group_size"}


def bn_group_size(config: ConfigDict) -> int:
    """Examples that share batch-norm statistics; 1 if there are none to share."""
    if architecture(config).norm == "none":
        return 1
    return config.model.bn_group_size or config.batch_size // config.grad_accum_steps


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines "field: old, now new" for the fields that say what is computed."""
    lines = []
    for key in sorted({*old, *new}):
        path, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{path}.")
        elif before != after and path not in WHERE_NOT_WHAT:
            lines.append(f"{path}: {before!r}, now {after!r}")
    return lines


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
    """Puts the config's section before the field that an error names."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}.{error}") from error


def _check_finite(config: ConfigDict, prefix: str = "") -> None:
    for field, value in config.items():
        if isinstance(value, ConfigDict):
            _check_finite(value, f"{prefix}{field}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{prefix}{field}={value!r}: must be finite")


def _check_groups(config: ConfigDict) -> None:
    if config.batch_size % config.grad_accum_steps:
        raise InputError(
            f"batch_size={config.batch_size}: not a multiple of "
            f"grad_accum_steps={config.grad_accum_steps}"
        )
    part, group = config.batch_size // config.grad_accum_steps, bn_group_size(config)
    if part % group:
        sizes = (size for size in range(1, part + 1) if part % size == 0)
        fitting = min(sizes, key=lambda size: abs(math.log(size / group)))
        raise InputError(
            f"model.bn_group_size={group}: batches of {part} (batch_size / grad_accum_steps) "
            "are not a whole number of batch-norm groups; set "
            f"model.bn_group_size={fitting}, or batch_size to a multiple of "
            f"{group * config.grad_accum_steps}"
        )


def _check_dataset(config: ConfigDict, prepared: bool) -> None:
    dataset = config.dataset
    if not dataset.train:
        raise InputError(f"dataset.train={dataset.train!r}: a run needs a training split")
    splits = [split for split in (dataset.train, dataset.validation, dataset.test) if split]
    if "streaming" in config:
        _check_streaming(config)
    if prepared and "streaming" in config:
        records.check(dataset.name, splits, data_dir=dataset.data_dir)
    elif prepared:
        datasets.check(
            dataset.name, splits, data_dir=dataset.data_dir, image_size=dataset.image_size
        )
    if config.schedule.name == "plateau" and not dataset.validation:
        raise InputError(
            "dataset.validation=None: schedule.name='plateau' needs a split to watch, for example "
            "dataset.train='train[:90%]', dataset.validation='train[90%:]'; the test set "
            "chooses nothing"
        )


def _check_streaming(config: ConfigDict) -> None:
    size, stream = config.dataset.image_size, config.streaming
    with section("streaming"):
        check_choice("augmentation", stream.augmentation, crops.AUGMENTATIONS)
    if size is None:
        raise InputError("dataset.image_size=None: a stream needs the side of crops, such as 224")
    if stream.num_workers is not None and stream.num_workers < 0:
        raise InputError(f"streaming.num_workers={stream.num_workers}: must not be negative")
    _require(config, "streaming.pca_lighting_std", lambda value: value >= 0, "must not be negative")
    sides = tuple(stream.scales)
    if len(sides) != 2 or not all(isinstance(n, int) for n in sides) or sides[0] > sides[1]:
        raise InputError(f"streaming.scales={sides}: wanted two lengths in pixels, the lower first")
    for field, side in (("scales", sides[0]), ("shorter_side", stream.shorter_side)):
        if side < size:
            raise InputError(
                f"streaming.{field}={stream[field]}: too small for crops of "
                f"dataset.image_size={size}"
            )


def _require(config: ConfigDict, field: str, allowed, message: str) -> None:
    value = config
    for name in field.split("."):
        value = value[name]
    if (value is None and field not in _OPTIONAL) or not allowed(value):
        raise InputError(f"{field}={value!r}: {message}")
