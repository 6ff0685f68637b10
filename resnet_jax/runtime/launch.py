"""Is this process one of several? Then it starts and ends with them.

Answered from flags and the environment, without loading JAX.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping

from absl import flags

from resnet_jax.errors import WRONG_INPUT, InputError, storage_failure
from resnet_jax.runtime import multihost

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0 of several; auto: JAX finds out, as on TPU VMs"
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "how many train together; 1: this one alone, whatever the scheduler says"
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "this one's number, from 0")


def join(**preparation: bool) -> None:
    """Joins the other processes if there are any.

    Args:
      preparation: see `backends.prepare`.

    Raises:
      InputError: the flags contradict each other, or the others cannot be reached.
    """
    coordinator, count, number = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    detected = coordinator == "auto" or scheduled(os.environ)
    if count == 1 or (not detected and (coordinator, count, number) == (None, None, None)):
        return
    _check(coordinator, count, number, detected)
    from resnet_jax.runtime import setup  # Only now, because it loads JAX.

    setup.prepare(**preparation)
    multihost.join(None if coordinator == "auto" else coordinator, count, number)


def _check(coordinator: str | None, count: int | None, number: int | None, detected: bool) -> None:
    if count is not None and count < 1:
        raise InputError(f"num_processes={count}: must be at least 1")
    if coordinator not in (None, "auto") and ":" not in coordinator:
        raise InputError(f"coordinator={coordinator!r}: expected host:port, or auto")
    if not detected and None in (coordinator, count, number):
        raise InputError(
            f"coordinator={coordinator!r}, num_processes={count}, process_id={number}: no "
            "scheduler says which processes there are, so all three are needed"
        )
    if number is not None and count is not None and not 0 <= number < count:
        raise InputError(f"process_id={number}: must be from 0 to {count - 1}")


def tell_others(mistake: str) -> None:
    """Lets the processes that wait for this one know of a mistake in its flags."""
    # Those that follow the wrong one have not been read.
    names = tuple(f"--{flag.name}=" for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID))
    with contextlib.suppress(flags.Error):
        flags.FLAGS([sys.argv[0], *[word for word in sys.argv if word.startswith(names)]])
    flags.FLAGS.mark_as_parsed()
    with contextlib.suppress(InputError):
        join()
        multihost.report(mistake)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """A mistake that one process finds within ends all of them, when they next meet.

    A bug or a full disk, of which the others know nothing, ends this process at once, and theirs
    end when they miss it.

    Raises:
      cluster.SharedMistake: in every process.
    """
    try:
        yield
    except multihost.SharedMistake:
        raise
    except InputError as error:
        multihost.report(str(error))
        raise
    except Exception as error:
        if multihost.size() == 1:
            raise
        # At once: Python's orderly way out waits for the others, and they for this process.
        failure = storage_failure(error)
        sys.stdout.flush()
        print(
            f"error: {failure}" if failure else traceback.format_exc(), file=sys.stderr, flush=True
        )
        os._exit(WRONG_INPUT if failure else 1)


def scheduled(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler started several processes of this command, in a way that JAX knows.

    A Slurm allocation with several tasks is not enough: a batch script, an interactive shell and a
    sweep's job run one process in it. What counts is the tasks of the `srun` that started this one.
    """
    slurm = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    open_mpi = int(environment.get("OMPI_COMM_WORLD_SIZE", "1"))
    # A Cloud TPU's hosts, by the names that its JAX runtime reads.
    tpu = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    slices = int(environment.get("MEGASCALE_NUM_SLICES", "1"))
    return max(slurm, open_mpi, slices, len(tpu.split(","))) > 1
