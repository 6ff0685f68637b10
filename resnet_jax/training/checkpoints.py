"""Training states on disk, by Orbax: asynchronous, atomic, the last few kept, and proved whole.

`load_weights` reads the weights alone, for which neither the data set nor the recipe need be known.
"""

import errno
import functools
import hashlib
import inspect
import itertools
import json
import logging as python_logging
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict

from resnet_jax.errors import WRONG_INPUT, InputError, os_error_number
from resnet_jax.runtime import multihost
from resnet_jax.training.state import TrainState

FORMAT = 1

RETRY_SECONDS = (1, 5, 10)
"""Waits before what could not be read is read again: a file server may be back by then."""

# Of a file that is not there or of another kind: damage. Any other failure to read says nothing
# about what the file holds.
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_NEVER = 2**62  # steps: of its multiples Orbax keeps all, and there is none but 0
_ORBAX = str(Path(ocp.__file__).parent)


class Checkpoints:
    """The checkpoints of one run, by step.

    A checkpoint is written in the background under another name and renamed when it is whole:
    a run killed at any instant finds the one before. With it goes a digest of its values, because
    files that a failing disk changed may still be readable.

    Of several processes each has the whole state: the first one saves and chooses what is restored,
    and each restores for itself. Orbax's way, in which all write and wait for each other, has a
    process whose disk is full wait at another barrier than the rest, for ten minutes.

    Args:
      directory: of the checkpoints, one folder each, named after its step.
      keep: the last so many are kept.
      keep_first: so is that of step 0.
      read_only: nothing in the directory is made or changed, and nothing can be saved.
      save_timeout: seconds; a save that takes longer hangs, as when a thread of TensorStore lacks
        the memory to say that it failed, and ends the process.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int = 2,
        *,
        keep_first: bool = False,
        read_only: bool = False,
        save_timeout: float = 600,
    ):
        self._directory = Path(directory).absolute()
        self._read_only = read_only or not multihost.is_first()
        if self._directory.exists() and not self._directory.is_dir():
            raise InputError(f"{self._directory}: not a folder; checkpoints go there")
        if not self._read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        number = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(number, {number}, f"process{number}")
        # Made in the background, a folder that cannot be made (a full disk) leaves threads that
        # keep the failed process alive.
        in_this_thread = ocp.AsyncOptions(create_directories_asynchronously=False)
        kind = (
            {"read_only": True, "save_interval_steps": 0}
            if self._read_only
            else {
                "max_to_keep": keep,
                "keep_period": _NEVER if keep_first else None,
                "async_options": in_this_thread,
            }
        )
        options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone, **kind)
        _silence_orbax()
        self._limit = _Limit(save_timeout, f"{self._directory}: a save has not ended")
        # With the handler given, Orbax does not guess from a folder, perhaps an empty one, how the
        # others are laid out.
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=options,
            item_handlers=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        )

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Starts saving `state`; does nothing if its step is saved already."""
        step = int(state.step)
        if multihost.is_first() and step not in self.steps:
            # A copy: the next step takes the state's memory while this is being written.
            own = jax.tree.map(lambda leaf: np.array(leaf.addressable_data(0)), state)
            with self._limit:  # The save before has to end first.
                self._manager.save(
                    step,
                    args=ocp.args.StandardSave(own),
                    custom_metadata={"format": FORMAT, "digest": _digest(own)},
                    force=True,
                )

    def restore(self, template: Any = None, step: int | None = None) -> Any:
        """The state saved at `step`, or the last one that is whole.

        A damaged one is passed over for the one before with a warning, and, unless this is
        read-only, renamed to "<step>.damaged": Orbax takes no notice of such a name.

        Args:
          template: a tree of arrays (or their shapes) with the shapes and shardings wanted; None
            for nested dicts of what was saved, on one device.
          step: None for the last one.

        Raises:
          InputError: there is no such checkpoint, it is one of another model or of a newer
            format, none is whole, or another process sees another one; nothing is renamed then.
        """
        self._finish_save()  # What is being saved is no damage.
        if step is not None and self.steps and step not in self.steps:
            raise InputError(f"step={step}: no such checkpoint; {self._directory} has {self.steps}")
        damaged: dict[int, str] = {}
        for candidate in self._candidates(step):
            state, damage = self._read(candidate, template)
            # Of several processes all resume from the same step, or none.
            damage = max(multihost.all_gather(damage))
            if not damage:
                break
            damaged[candidate] = damage
        else:
            if not damaged:
                raise InputError(f"{self._directory}: no checkpoint in this folder")
            first = next(iter(damaged))
            message = f"{self._directory / str(first)}: damaged ({damaged[first]})"
            if step is None:
                message += f"; no checkpoint is whole, delete {self._directory} to start over"
            raise InputError(message)
        folder = self._directory / str(candidate)
        multihost.same_everywhere(str(folder), lambda: str(_record(folder).get("digest")).encode())
        self._set_aside(damaged, candidate)
        return state

    def _candidates(self, step: int | None) -> Iterator[int]:
        """Steps to try, the last one first, or `step` alone: those that the first process sees.

        What a file server shows to the others may be older. Each of them waits until it sees the
        same.

        Raises:
          InputError: this process does not come to see it.
        """
        own = iter([each for each in self.steps[::-1] if step in (None, each)])
        ask = lambda: multihost.broadcast_from_host0(lambda: str(next(own, "")))
        for candidate in map(int, iter(ask, "")):
            if not multihost.is_first():
                _wait_for(self._directory / str(candidate))
                self._manager.reload()
            yield candidate

    def _read(self, step: int, template: Any) -> tuple[Any, str]:
        """What was saved at `step`, and "" or how it is damaged.

        Raises:
          InputError: it is of another network, or of a newer format.
          OSError: its files cannot be read, now and some times more.
        """
        for wait in (*RETRY_SECONDS, None):
            try:
                return self._read_once(step, template)
            except OSError as error:
                if wait is None:
                    raise
                logging.warning("%s: read again in %d s", error, wait)
                time.sleep(wait)
        raise AssertionError

    def _read_once(self, step: int, template: Any) -> tuple[Any, str]:
        folder = self._directory / str(step)
        try:
            record = _record(folder)
            if record.get("format", FORMAT) > FORMAT:
                raise InputError(
                    f"{folder}: format {record['format']} is newer than this version reads"
                )
            wanted = _on_one_device(_saved(folder)) if template is None else template
            wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
            state = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
        except (InputError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # Of broken files Orbax and TensorStore raise many kinds.
            number = os_error_number(error)
            if number is not None and number not in _NOT_THERE:
                raise OSError(number, os.strerror(number), str(folder)) from error
            if template is not None:
                _check_tree(folder, template, error)
            return None, _first_line(error)
        # Checkpoints of earlier versions have no digest.
        whole = record.get("digest") in (None, _digest(state))
        return state, "" if whole else "it holds other values than were saved"

    def _set_aside(self, damaged: dict[int, str], instead: int) -> None:
        if damaged and multihost.is_first():
            for step, damage in damaged.items():
                folder = self._directory / str(step)
                to = "" if self._read_only else f", now {_rename(folder).name},"
                logging.warning("%s%s is damaged (%s): using step %d", folder, to, damage, instead)
        if damaged:
            multihost.barrier()
            self._manager.reload()

    def close(self) -> None:
        """Waits until what was saved is on disk."""
        try:
            self._finish_save()
        finally:  # A save that failed is raised here; its threads must end all the same.
            with self._limit:
                self._manager.close()
            self._limit.close()

    def _finish_save(self) -> None:
        with self._limit:
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Limit:
    """Ends the process if a `with` block of this takes longer than so many seconds of its running.

    No exception would do: Python waits for all threads when it exits. The thread that watches is
    there from the start, because without memory none can be started. It counts the seconds itself,
    because those in which the process is stopped are no sign of a hang.
    """

    def __init__(self, seconds: float, what: str):
        self._seconds = seconds
        self._line = f"error: {what} in {seconds} s; rerun the command to resume\n".encode()
        self._now, self._deadline = 0, math.inf
        self._closed = False
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._deadline = self._now + self._seconds

    def __exit__(self, *_: Any) -> None:
        self._deadline = math.inf

    def close(self) -> None:
        self._closed = True

    def _watch(self) -> None:
        while not self._closed:
            try:
                time.sleep(1)
                self._now += 1
            except MemoryError:  # Then, of all times, this thread must not end.
                continue
            if self._now > self._deadline:
                try:
                    os.write(2, self._line)
                finally:
                    os._exit(WRONG_INPUT)


def _digest(state: Any) -> str:
    """Of the values and their names; whether a tree is of dataclasses or dicts does not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(ocp.tree.to_flat_dict(state, sep=".").items()):
        if value is not None:  # so Orbax shows empty branches
            value = np.asarray(jax.device_get(value))
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _wait_for(folder: Path) -> None:
    for seconds in (*RETRY_SECONDS, None):
        if folder.is_dir():
            return
        if seconds is not None:
            time.sleep(seconds)
    raise InputError(
        f"{folder}: not there, where process 0 has it; rerun the command once all hosts see it"
    )


def _record(folder: Path) -> dict[str, Any]:
    """What `save` put beside the state."""
    text = (folder / "_CHECKPOINT_METADATA").read_text(encoding="utf-8")
    return json.loads(text)["custom_metadata"] or {}


def _saved(folder: Path) -> Any:
    """Shapes, as nested dicts, of what a checkpoint holds."""
    return ocp.StandardCheckpointHandler().metadata(folder / "default").tree


def _on_one_device(saved: Any) -> Any:
    # Without this, Orbax wants the very devices from which the arrays were saved.
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), saved
    )


def _check_tree(folder: Path, template: Any, error: Exception) -> None:
    """Raises `InputError` if the checkpoint was readable, and is one of another network."""
    try:
        saved = _shapes(_saved(folder))
    except Exception:  # Then it is the checkpoint that is damaged.
        return
    wanted = _shapes(template)
    different = sorted(name for name in {*saved, *wanted} if saved.get(name) != wanted.get(name))
    if different:
        name = different[0]
        raise InputError(
            f"{folder}: not a checkpoint of this network and recipe ({name}: saved "
            f"{saved.get(name, 'nothing')}, wanted {wanted.get(name, 'nothing')})"
        ) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = ocp.tree.to_flat_dict(tree, sep=".")
    return {name: leaf.shape for name, leaf in leaves.items() if leaf is not None}


def _rename(folder: Path) -> Path:
    endings = ("" if number == 1 else f"-{number}" for number in itertools.count(1))
    places = (folder.with_name(f"{folder.name}.damaged{ending}") for ending in endings)
    return folder.rename(next(place for place in places if not place.exists()))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


class SavedWeights(NamedTuple):
    """Weights as saved.

    Attributes:
      step: updates made until then.
      variables: what `model.apply` takes.
    """

    step: int
    variables: dict[str, Any]


def load_weights(directory: str | os.PathLike, step: int | None = None) -> SavedWeights:
    """Loads weights onto one device, wherever they were saved; the directory is left as it is.

    Args:
      directory: a run's folder of checkpoints.
      step: None for the last one that is whole.

    Raises:
      InputError: there is no such checkpoint, or it is damaged or of a run that diverged.
    """
    with Checkpoints(directory, read_only=True) as checkpoints:
        state = checkpoints.restore(step=step)
    # A network without batch norm has no statistics.
    variables = {"params": state["params"], "batch_stats": state.get("batch_stats", {})}
    check_finite(variables, Path(directory) / str(state["step"]))
    return SavedWeights(int(state["step"]), variables)


def check_finite(variables: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises `InputError` if one is NaN or infinite: what XLA computes from it may look like more.

    Args:
      variables: parameters and statistics.
      checkpoint: where they were saved.
    """
    for path, value in flatten_dict(variables).items():
        if not np.isfinite(value).all():
            raise InputError(
                f"{checkpoint}: {'.'.join(path[1:])} has values that are not finite; has the run "
                "diverged? Earlier checkpoints may be whole"
            )


def check_shapes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `InputError`, naming the first that differs, unless these are the wanted variables.

    Args:
      found, wanted: variables, or their shapes.
    """
    there, needed = flatten_dict(found), flatten_dict(wanted)
    for path in there.keys() - needed.keys():
        raise InputError(f"{'.'.join(path[1:])} is there, and nothing of that name here")
    for path, own in needed.items():
        if path not in there or there[path].shape != own.shape:
            has = list(there[path].shape) if path in there else "nothing"
            raise InputError(f"{'.'.join(path[1:])} is {has} there, here {list(own.shape)}")


@functools.cache
def _silence_orbax() -> None:
    """Keeps what Orbax says of failures off the screen: hundreds of lines for one cause.

    Orbax raises the cause in the thread that saves or restores, where it is told in one line.
    Besides it logs it with tracebacks, and closes its event loop while TensorStore's threads are
    still at work on other arrays. Each of those then complains in its own way, sooner or later,
    that the loop is gone or that nobody asked for its error.
    """
    logging.get_absl_logger().addFilter(lambda record: not record.pathname.startswith(_ORBAX))
    python_logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def show_others(unraisable):
        abandoned = inspect.iscoroutine(unraisable.object)
        if not abandoned and str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = show_others
