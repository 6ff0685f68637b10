"""What this machine has and how this process keeps its memory; loads no JAX."""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def computes_on_cpu() -> bool:
    """Whether JAX will, as far as that shows before it is loaded.

    It does on a machine without an accelerator, too, though JAX is installed for one there.
    """
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return True
    gpu = has_gpu_plugin() and _has_device("nvidia*", "dxg", "kfd")  # CUDA, in WSL, ROCm
    return not (gpu or (has_tpu_library() and _has_device("accel*", "vfio/*")))


def _has_device(*names: str) -> bool:
    return any(any(Path("/dev").glob(name)) for name in names)


def has_gpu_plugin() -> bool:
    """Whether JAX's plugin for CUDA or ROCm is installed."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any(plugin.name.startswith(("xla_cuda", "xla_rocm")) for plugin in plugins)


def has_tpu_library() -> bool:
    """Whether the library for TPUs is installed."""
    return importlib.util.find_spec("libtpu") is not None


def keep_freed_memory() -> None:
    """On CPUs, malloc keeps what a step frees; else every step asks the system for it anew.

    To be called before a second thread allocates, as those of TFDS's builders do: a thread gets a
    heap of its own, which later ones take over, and no such heap holds more than 64 MB at once.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return  # Not glibc.
    if computes_on_cpu():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # Never; the largest number would be two gigabytes.
        mallopt(_M_ARENA_MAX, 1)
