"""A file of weights as a run's folder, and back: what `experiments.convert` does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.interop import pytorch_names, weight_files
from resnet_jax.runs import Recipe, arguments, load_recipe, lockfile
from resnet_jax.training.checkpoints import Checkpoints, load_weights
from resnet_jax.training.run import check_dataset
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import MetricAccumulator, TrainState
from resnet_jax.training.step import sgd

__all__ = ["export", "fill"]

_NUM_CLASSES = {"cifar10": 10, "cifar100": 100}


def fill(
    workdir: Path, source: Path, dataset: str | None, recipe_for: Callable[[str], ConfigDict]
) -> str:
    """Makes a run's folder of a file of weights; returns what to print.

    Args:
      workdir: the folder.
      source: the file, see `weight_files.read`.
      dataset: "name[,key=value…]", on what the weights will be evaluated; None for CIFAR-10 or
        CIFAR-100 by their number of classes.
      recipe_for: the config of a network by its name, of which fields of `model` and `dataset`
        are then set.

    Raises:
      InputError: there is a run already, or the file, the data set or the two do not fit.
    """
    if runs.read_run(workdir).status != "missing":
        raise InputError(f"workdir={str(workdir)!r}: holds a run already; choose another folder")
    tensors = weight_files.read(source)
    try:
        weights = pytorch_names.from_torch(tensors)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    config = _config(weights, dataset, recipe_for)
    config.converted_from = source.name
    recipe = Recipe.from_config(config)
    check_dataset(recipe)
    with lockfile.claim(workdir):
        runs.write_config(workdir, recipe.to_dict(), devices="none: converted weights")
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(_state(weights, recipe))
    net = " ".join([weights.name, *(f"{k}={v}" for k, v in weights.overrides.items())])
    return (
        f"{workdir}: {net}, {weights.num_classes} classes, from {source.name}; to score it: "
        f"python -m experiments.evaluate --workdir={workdir}"
    )


def export(workdir: Path, output: Path, step: int | None) -> str:
    """Writes the weights of a run's checkpoint to a file; returns what to print.

    Args:
      workdir: the run's folder.
      output: the file, of a suffix in `weight_files.SUFFIXES`.
      step: of the checkpoint; None for the last one.

    Raises:
      InputError: there is no such run or checkpoint, no layout has this network, or the file
        cannot be written.
    """
    weight_files.check_suffix(output)
    net = load_recipe(workdir).architecture
    layout = "torchvision" if net.stem == "imagenet" else "akamaster"
    pytorch_names.check_has(layout, net)
    saved = load_weights(workdir / "checkpoints", step)
    tensors = pytorch_names.to_torch(saved.variables, net, layout, num_batches=saved.step)
    weight_files.write(output, tensors)
    return f"{output}: {len(tensors)} tensors at step {saved.step}, under {layout}'s names"


def _default_dataset(num_classes: int) -> str:
    for name, count in _NUM_CLASSES.items():
        if count == num_classes:
            return name
    raise InputError(
        f"dataset=None: the weights tell {num_classes} classes apart; name the data set, for "
        "example --dataset=image_folder,data_dir=/data/pets,image_size=224"
    )


def _config(
    weights: pytorch_names.Weights, dataset: str | None, recipe_for: Callable[[str], ConfigDict]
) -> ConfigDict:
    """All fields that `experiments.evaluate` reads, and values for those that it does not."""
    config = recipe_for(weights.name)
    config.model.update(weights.overrides)
    name, fields = arguments.split(dataset, "")
    name = name or _default_dataset(weights.num_classes)
    if _NUM_CLASSES.get(name, weights.num_classes) != weights.num_classes:
        raise InputError(
            f"dataset={name!r}: has {_NUM_CLASSES[name]} classes; the weights tell "
            f"{weights.num_classes} apart"
        )
    config.dataset.name = name
    config.dataset.mean = config.dataset.std = "imagenet"
    arguments.update(config.dataset, fields)
    return config


def _state(weights: pytorch_names.Weights, recipe: Recipe) -> TrainState:
    """The weights as the state before a first step."""
    variables = jax.tree.map(jnp.asarray, weights.variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=sgd(**dataclasses.asdict(recipe.optimizer)).init(variables["params"]),
        schedule=Schedule.of(recipe).init(),
        window=MetricAccumulator.empty(),
    )
