"""Several processes that train one run together: they meet, agree, and stop at the same step.

For a process on its own every function here does nothing or the obvious, and loads no JAX.
"""

import hashlib
import signal
from collections.abc import Callable

import numpy as np

from resnet_jax.errors import InputError

_LINE = 2048  # bytes that a process can say when they meet
_MISTAKE = "mistake: "

_size, _number = 1, 0


class SharedMistake(InputError):
    """A mistake of one process that all have heard of."""


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes; call it before JAX looks for devices.

    What is None is found out by JAX, which knows Slurm, Open MPI and Cloud TPUs.

    Args:
      coordinator: "host:port", where process 0 can be reached.
      num_processes: how many there are.
      process_id: this one's number, from 0.

    Raises:
      InputError: the values are wrong, or the others cannot be reached.
    """
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:  # jaxlib's own errors are RuntimeErrors.
        raise InputError(
            f"coordinator={coordinator!r}, num_processes={num_processes}, "
            f"process_id={process_id}: {str(error).strip().splitlines()[0]}"
        ) from error
    global _size, _number
    _size, _number = jax.process_count(), jax.process_index()
    counts = [sum(d.process_index == p for d in jax.devices()) for p in range(_size)]
    if len(set(counts)) > 1:
        raise SharedMistake(f"devices of the processes: {counts}; each needs as many as the others")
    _connect_devices()


def _connect_devices() -> None:
    """Makes the connections over which processes meet and train, while all are here.

    Gloo, which serves CPUs, waits half a minute for a first connection; later, processes that load
    data or compile may be further apart than that.
    """
    import jax

    from resnet_jax.runtime import parallel

    meet()
    num_devices = jax.device_count()
    mesh = parallel.make_mesh(num_devices, num_devices, num_devices)
    ones = parallel.place(np.ones(num_devices), parallel.sharded(mesh))
    total = jax.jit(lambda x: x.sum(), out_shardings=parallel.replicated(mesh))(ones)
    jax.block_until_ready(total)


def size() -> int:
    """The number of processes."""
    return _size


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return _number == 0


def meet(word: str = "") -> list[str]:
    """Waits for all processes, and returns what each of them says.

    Raises:
      SharedMistake: one of them came to report a mistake.
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
        if said.startswith(_MISTAKE):
            raise SharedMistake(f"process {number}: {said.removeprefix(_MISTAKE)}")
    return words


def from_first(question: Callable[[], str]) -> str:
    """The first process's answer, on all of them; the others are not asked."""
    return meet(question() if is_first() else "")[0]


def same_everywhere(field: str, value: Callable[[], bytes]) -> None:
    """Raises `SharedMistake` if the processes differ in a value, which is asked for if need be."""
    if _size == 1:
        return
    words = meet(hashlib.sha256(value()).hexdigest())
    for number, word in enumerate(words):
        if word != words[0]:
            raise SharedMistake(f"{field}: process {number} has another one than process 0")


def report(mistake: str) -> None:
    """Raises `SharedMistake` in all processes when they next meet; of one alone, does nothing."""
    meet(f"{_MISTAKE}{mistake}")


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
