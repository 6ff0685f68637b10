"""How many runs at once, and which part of the machine each may use."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping

from resnet_jax.errors import InputError

_PROBE = "import jax; print(jax.default_backend(), jax.local_device_count())"


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one worker may use.

    Attributes:
      environment: variables that its process gets.
      cores: CPU cores that its process is pinned to; none for all.
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()


def slots(num_runs: int, workers: int | None = None) -> list[Slot]:
    """Shares this machine among workers.

    Each GPU is one worker's, or several workers' if there are more of them. CPU cores are shared
    out evenly. A TPU host is one worker's.

    Args:
      num_runs: of the sweep. It counts the finished ones too, so that a sweep which is started
        again runs the others on as many cores as before, and gets the same bits.
      workers: how many; None for one a GPU, or one a CPU core.

    Raises:
      InputError: no device can be used, or not by so many workers.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: must be at least 1")
    platform, count = _probe()
    if platform == "cpu":
        return _cpu_slots(num_runs, workers)
    if platform == "gpu":
        return _gpu_slots(count, workers or count)
    if workers not in (None, 1):
        raise InputError(f"workers={workers}: on a {platform} host one process has all chips")
    return [Slot()]


def _cpu_slots(num_runs: int, workers: int | None) -> list[Slot]:
    if not hasattr(os, "sched_getaffinity"):
        return [Slot()]
    cores = sorted(os.sched_getaffinity(0))
    count = workers or min(num_runs, len(cores))
    share = max(1, len(cores) // count)
    firsts = (number * share % len(cores) for number in range(count))
    return [Slot(cores=tuple(cores[first : first + share])) for first in firsts]


def _gpu_slots(count: int, workers: int) -> list[Slot]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    environment = {}
    if workers > count:
        together = -(-workers // count)
        environment["XLA_CLIENT_MEM_FRACTION"] = f"{0.9 / together:.3f}"
        # Its former name: jaxlib refuses both at once, and takes an empty one for none.
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = ""
    return [
        Slot({**environment, "CUDA_VISIBLE_DEVICES": names[number % count]})
        for number in range(workers)
    ]


def _probe() -> tuple[str, int]:
    """JAX's platform and number of devices, from another process: this one takes no device."""
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if probe.returncode:
        raise InputError(f"JAX finds no device: {probe.stderr.strip().splitlines()[-1]}")
    platform, count = probe.stdout.split()
    return platform, int(count)
