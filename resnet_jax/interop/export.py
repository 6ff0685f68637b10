"""A file of weights as a run's folder, and a run as a file: what `experiments.convert` does."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax.data import datasets, device_dataset
from resnet_jax.errors import InputError
from resnet_jax.interop import programs, pytorch_names, weight_files
from resnet_jax.runs import Recipe, arguments, load_recipe, lockfile
from resnet_jax.runs.recipe import plain_name, section
from resnet_jax.runtime import setup
from resnet_jax.training import inference
from resnet_jax.training.checkpoints import Checkpoints, load_weights
from resnet_jax.training.run import check_dataset
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import TrainState, begin
from resnet_jax.training.step import sgd
from resnet_jax.training.trainer import STATISTICS

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
      InputError: there is a run already, or the file, the data set or the two do not fit; images
        that the normalisation is computed from cannot be read; or JAX is set to float64.
    """
    setup.check_float32()
    there = runs.read_run(workdir)
    if there.status != "missing" or there.problems:
        raise InputError(f"workdir={str(workdir)!r}: holds a run already; choose another folder")
    tensors = weight_files.read(source)
    try:
        weights = pytorch_names.from_torch(tensors)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    config = _config(weights, dataset, recipe_for)
    config.converted_from = source.name
    recipe = Recipe.from_config(config)
    check_dataset(recipe, test_only=not inference.reads_training_split(recipe))
    class_names, shape = _check_channels(weights, recipe)
    fits = len(class_names) == weights.num_classes
    # What the images are now; others may lie in their folder later.
    statistics = inference.normalization(recipe, shape) if fits else None
    with lockfile.claim(workdir):
        runs.write_config(
            workdir,
            recipe.to_dict(),
            devices="none: converted weights",
            class_names=class_names if fits else (),
        )
        if statistics:
            statistics.save(workdir / STATISTICS)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(_state(weights, recipe))
    network = " ".join([weights.name, *(f"{k}={v}" for k, v in weights.overrides.items())])
    told = f"{workdir}: {network}, {weights.num_classes} classes, from {source.name}"
    if fits:
        # Published errors are those of centres; without a view the shorter side is seen whole.
        cut = recipe.architecture.stem == "imagenet" and recipe.dataset.image_size
        return (
            f"{told}, taken to be, in this order, {_first(class_names)} of {recipe.dataset.name}, "
            f"and images normalised with {_normalized(recipe)}; to score it: python -m "
            f"experiments.evaluate --workdir={workdir}{' --test_crops=centre' if cut else ''}"
        )
    own = plain_name(recipe.dataset.name) == "image_folder"
    images = recipe.dataset.data_dir if own else "IMAGES"
    return (
        f"{told}; {recipe.dataset.name} has {len(class_names)} classes: to fine-tune it: python -m "
        f"experiments.train --config=configs/finetune.py:init_from={workdir},data_dir={images} "
        "--workdir=FOLDER"
    )


def export(workdir: Path, output: Path, step: int | None) -> str:
    """Writes a run's network to a file; returns what to print.

    Args:
      workdir: the run's folder.
      output: the file; its suffix says whether it gets the weights (`weight_files.SUFFIXES`) or a
        program (`programs.SUFFIXES`).
      step: of the checkpoint; None for the last one.

    Raises:
      InputError: there is no such run or checkpoint, no layout has this network's weights, or the
        file cannot be written.
    """
    weight_files.check_suffix(output, (*weight_files.SUFFIXES, *programs.SUFFIXES))
    if output.suffix in programs.SUFFIXES:
        loaded = inference.load(workdir, step)
        weight_files.write_bytes(output, programs.serialize(loaded, output.suffix))
        shape = ", ".join(map(str, loaded.image_shape))
        return (
            f"{output}: {loaded.recipe.model.name} at step {loaded.step}, from uint8 images "
            f"[batch, {shape}] to logits [batch, {len(loaded.class_names)}]"
        )
    recipe = load_recipe(workdir)
    net = recipe.architecture
    layout = "torchvision" if net.stem == "imagenet" else "akamaster"
    pytorch_names.check_has(layout, net)
    saved = load_weights(workdir / "checkpoints", step)
    tensors = pytorch_names.to_torch(saved.variables, net, layout, num_batches=saved.step)
    weight_files.write(output, tensors)
    return (
        f"{output}: {len(tensors)} tensors at step {saved.step}, under {layout}'s names, for "
        f"images normalised with {_normalized(recipe)}"
    )


def _default_dataset(num_classes: int) -> str:
    for name, count in _NUM_CLASSES.items():
        if count == num_classes:
            return name
    raise InputError(
        f"dataset=None: the weights have {num_classes} classes; name the data set, for "
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
            f"dataset={name!r}: has {_NUM_CLASSES[name]} classes, the weights have "
            f"{weights.num_classes}"
        )
    config.dataset.name = name
    config.dataset.mean = config.dataset.std = "imagenet"
    arguments.update(config.dataset, fields)
    return config


def _first(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, … {names[-1]}"


def _normalized(recipe: Recipe) -> str:
    return f"mean={recipe.dataset.mean}, std={recipe.dataset.std}"


def _check_channels(
    weights: pytorch_names.Weights, recipe: Recipe
) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    """The names of the data set's classes, and the shape of its images.

    Raises:
      InputError: its images have other channels than the weights or the normalisation need.
    """
    dataset = recipe.dataset
    info = datasets.describe(dataset.name, data_dir=dataset.data_dir, image_size=dataset.image_size)
    assert info.image_shape is not None  # `check_dataset` refuses images of several sizes.
    there, taken = info.image_shape[-1], weights.variables["params"]["stem"]["kernel"].shape[2]
    if there != taken:
        raise InputError(
            f"dataset={dataset.name!r}: images have {there} channel(s); the weights take {taken}"
        )
    with section("dataset"):
        blank = np.zeros((1, *info.image_shape), np.uint8)
        device_dataset.normalization(blank, dataset.mean, dataset.std)
    return info.class_names, info.image_shape


def _state(weights: pytorch_names.Weights, recipe: Recipe) -> TrainState:
    """The weights as the state before a first step."""
    variables = jax.tree.map(jnp.asarray, weights.variables)
    return begin(variables, sgd(**dataclasses.asdict(recipe.optimizer)), Schedule.of(recipe))
