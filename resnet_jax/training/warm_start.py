"""A run that starts from the weights of another one, with a classifier of its own."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from resnet_jax.errors import InputError
from resnet_jax.models.architecture import Architecture
from resnet_jax.runs import recipe

_OF_TRAINING = frozenset(
    (
        "bn_group_size",
        "initialization",
        "zero_init_last",
        "gate_bias",
        "dropout_rate",
        "output_stride",
    )
)
"""Axes that change nothing in what given weights compute, or where they are."""


def check(config: ConfigDict) -> None:
    """Finds what is wrong with `config.init_from`, before anything slow.

    Raises:
      InputError: it is not a run's folder with checkpoints, or the run has another architecture.
    """
    if config.init_from is None:
        return
    folder = Path(config.init_from)
    with _named(folder):
        theirs = recipe.architecture(recipe.load_config(folder))
        steps = (folder / "checkpoints").glob("*")
        if not any(step.name.isdecimal() for step in steps):
            raise InputError("no checkpoint in this folder")
        _check_same(theirs, recipe.architecture(config))


def take_over(fresh, folder: Path):
    """The training state `fresh` with the weights of another run's last whole checkpoint.

    The classifier stays `fresh`: its classes are this run's.

    Raises:
      InputError: there is no such checkpoint, or a weight has another shape.
    """
    import jax

    from resnet_jax.training.weights import check_shapes, load_weights

    with _named(folder):
        theirs, own = load_weights(folder / "checkpoints").variables, fresh.variables
        theirs["params"]["classifier"] = own["params"]["classifier"]
        check_shapes(theirs, own)
    taken = jax.tree.map(lambda mine, given: jax.numpy.asarray(given, mine.dtype), own, theirs)
    return fresh.replace(params=taken["params"], batch_stats=taken["batch_stats"])


def _check_same(theirs: Architecture, ours: Architecture) -> None:
    for field in dataclasses.fields(Architecture):
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        if there != here and field.name not in _OF_TRAINING:
            raise InputError(
                f"a net of another architecture ({field.name}={there!r}, here {here!r})"
            )


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Puts the field before what is wrong with it."""
    try:
        yield
    except InputError as error:
        message = str(error).removeprefix(f"workdir={str(folder)!r}: ")
        raise InputError(f"init_from={str(folder)!r}: {message}") from error
