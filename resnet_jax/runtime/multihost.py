"""Several processes that train one run together: they join, agree, and stop at the same step.

For a process on its own every function here does nothing or the obvious, and loads no JAX.
"""

import contextlib
import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

import numpy as np

from resnet_jax.errors import WRONG_INPUT, InputError, storage_failure

_LINE = 2048  # bytes that a process can say to all
_ERROR = "error: "

_size, _number = 1, 0


class SharedError(InputError):
    """A user error of one process that all have heard of."""


def is_one_of_several(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> bool:
    """Whether this process is to join others; arguments as of `join`, "auto" for all that is None.

    Raises:
      InputError: the arguments contradict each other.
    """
    given = (coordinator, num_processes, process_id)
    detected = coordinator == "auto" or scheduled(os.environ)
    if num_processes == 1 or (not detected and given == (None, None, None)):
        return False
    if num_processes is not None and num_processes < 1:
        raise InputError(f"num_processes={num_processes}: must be at least 1")
    if coordinator not in (None, "auto") and ":" not in coordinator:
        raise InputError(f"coordinator={coordinator!r}: expected host:port, or auto")
    if not detected and None in given:
        raise InputError(
            f"coordinator={coordinator!r}, num_processes={num_processes}, "
            f"process_id={process_id}: no scheduler says which processes there are, so all three "
            "are needed"
        )
    if process_id is not None and num_processes and not 0 <= process_id < num_processes:
        raise InputError(f"process_id={process_id}: must be from 0 to {num_processes - 1}")
    return True


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


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes; call it before JAX looks for devices.

    What is None is found out by JAX, which knows Slurm, Open MPI and Cloud TPUs.

    Args:
      coordinator: "host:port", where process 0 can be reached; "auto" as None.
      num_processes: how many there are.
      process_id: this one's number, from 0.

    Raises:
      InputError: the values are wrong, or the others cannot be reached.
    """
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:  # jaxlib's own errors are RuntimeErrors.
        raise InputError(
            f"coordinator={coordinator!r}, num_processes={num_processes}, "
            f"process_id={process_id}: {str(error).strip().splitlines()[0]}"
        ) from error
    global _size, _number
    _size, _number = jax.process_count(), jax.process_index()
    counts = [sum(d.process_index == p for d in jax.devices()) for p in range(_size)]
    if len(set(counts)) > 1:
        raise SharedError(f"devices of the processes: {counts}; each needs as many as the others")
    _connect_devices()


def _connect_devices() -> None:
    """Makes the connections over which processes talk and train, while all are here.

    Gloo, which serves CPUs, waits half a minute for a first connection; later, processes that load
    data or compile may be further apart than that.
    """
    import jax

    from resnet_jax.runtime import parallel

    barrier()
    num_devices = jax.device_count()
    mesh = parallel.make_mesh(num_devices, num_devices, num_devices)
    ones = parallel.device_put_global(np.ones(num_devices), parallel.sharded(mesh))
    total = jax.jit(lambda x: x.sum(), out_shardings=parallel.replicated(mesh))(ones)
    jax.block_until_ready(total)


def size() -> int:
    """The number of processes."""
    return _size


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return _number == 0


def barrier() -> None:
    """Waits for all processes; raises as `all_gather`."""
    all_gather("")


def all_gather(word: str) -> list[str]:
    """Waits for all processes, and returns what each of them says.

    Raises:
      SharedError: one of them called `raise_on_all_hosts` instead.
    """
    if _size == 1:
        return [word]
    from jax.experimental import multihost_utils

    line = np.zeros(_LINE, np.uint8)
    text = word.encode()[:_LINE]
    line[: len(text)] = np.frombuffer(text, np.uint8)
    lines = multihost_utils.process_allgather(line)
    words = [bytes(line).rstrip(b"\0").decode(errors="ignore") for line in lines]
    for number, said in enumerate(words):
        if said.startswith(_ERROR):
            raise SharedError(f"process {number}: {said.removeprefix(_ERROR)}")
    return words


def broadcast_from_host0(question: Callable[[], str]) -> str:
    """The first process's answer, on all of them; the others are not asked."""
    return all_gather(question() if is_first() else "")[0]


def same_everywhere(field: str, value: Callable[[], bytes]) -> None:
    """Raises `SharedError` if the processes differ in a value, which is asked for if need be."""
    if _size == 1:
        return
    words = all_gather(hashlib.sha256(value()).hexdigest())
    for number, word in enumerate(words):
        if word != words[0]:
            raise SharedError(f"{field}: process {number} has another one than process 0")


def raise_on_all_hosts(error: str) -> None:
    """Raises `SharedError` in all processes where they next wait; of one alone, does nothing."""
    all_gather(f"{_ERROR}{error}")


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """All processes exit together on a user error that one of them finds within.

    A bug or a full disk, of which the others know nothing, ends this process at once, and theirs
    end when they miss it.

    Raises:
      SharedError: in every process.
    """
    try:
        yield
    except SharedError:
        raise
    except InputError as error:
        raise_on_all_hosts(str(error))
        raise
    except Exception as error:
        if _size == 1:
            raise
        # At once: Python's orderly way out waits for the others, and they for this process.
        failure = storage_failure(error)
        sys.stdout.flush()
        print(
            f"error: {failure}" if failure else traceback.format_exc(), file=sys.stderr, flush=True
        )
        os._exit(WRONG_INPUT if failure else 1)


class StopSignals:
    """While entered, notes SIGTERM and SIGINT; a second SIGINT interrupts at once."""

    def __init__(self):
        self._asked = False

    def asked(self) -> bool:
        """Whether the run should save and stop."""
        return self._asked

    def __enter__(self) -> "StopSignals":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True


class StopTogether:
    """SIGTERM or Ctrl-C in any process stops all of them after the same question.

    JAX's own service carries the word; between the processes' devices nothing is sent.
    """

    def __init__(self):
        self._questions = 0
        self._stopped = False

    def asked(self) -> bool:
        """Whether the run should save and stop; all processes must ask equally often."""
        from jax.experimental import multihost_utils

        self._questions += 1
        if multihost_utils.reached_preemption_sync_point(self._questions):
            self._stopped = True
        return self._stopped

    def __enter__(self) -> "StopTogether":
        # SIGTERM is handled by JAX, since the processes joined.
        self._before = signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGINT, self._before)
