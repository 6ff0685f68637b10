"""Training states on disk, by Orbax: asynchronous, atomic, the last few kept."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from resnet_jax.errors import InputError
from resnet_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, by step.

    A checkpoint is written in the background under another name and renamed when it is whole:
    a run killed at any instant finds the one before.
    """

    def __init__(self, directory: str | os.PathLike, keep: int = 2):
        self._directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            # Made in the background, a folder that cannot be made (a full disk) leaves threads
            # that keep the failed process alive.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Starts saving `state`; does nothing if its step is saved already."""
        step = int(state.step)
        if step not in self.steps:
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, template: Any, step: int | None = None) -> Any:
        """The state saved at `step`, or the last one.

        Args:
          template: a tree of arrays (or their shapes) with the shapes and shardings wanted.
          step: None for the last one.

        Raises:
          InputError: there is no such checkpoint, or it is one of another model.
        """
        if not self.steps:
            raise InputError(f"{self._directory}: no checkpoint in this folder")
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise InputError(f"step={step}: no such checkpoint; {self._directory} has {self.steps}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except ValueError as error:  # So Orbax says that names or shapes differ.
            raise InputError(
                f"{self._directory / str(step)}: not a checkpoint of this network and recipe "
                f"({str(error).strip().splitlines()[0]})"
            ) from error

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        try:
            self._manager.wait_until_finished()
        finally:  # A save that failed is raised here; its threads must end all the same.
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
