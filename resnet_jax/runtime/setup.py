"""How JAX is set up in this process, before it first computes."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.errors import InputError
from resnet_jax.runtime import cpu, machine


def prepare(*, deterministic: bool = False, onednn: bool = False) -> None:
    """Sets JAX up; a command calls it, before JAX first computes.

    What the user has set already, in XLA_FLAGS or the environment, is kept. What each of these
    gives is in docs/performance.md.

    Args:
      deterministic: on GPUs XLA computes the same bits at every start. It then chooses no kernel
        by timing it, and no operation adds in the order of arrival: slower.
      onednn: on CPUs, convolutions are oneDNN's where that is the faster library. Programs with
        them cannot be written to the compilation cache.
    """
    flags: dict[str, str] = {}
    if onednn and machine.computes_on_cpu():
        flags |= cpu.onednn_flags()
    if deterministic and machine.has_gpu_plugin():
        flags["xla_gpu_deterministic_ops"] = "true"
    _add_xla_flags(flags)
    if "xla_cpu_experimental_onednn_custom_call=true" not in os.environ["XLA_FLAGS"]:
        _keep_compiled_programs()
    _use_cores_as_devices()
    machine.keep_freed_memory()


def prepare_for(recipes: Iterable[Any]) -> None:
    """`prepare`, as any of these recipes has it."""
    given = [(recipe.deterministic, recipe.onednn) for recipe in recipes]
    prepare(deterministic=any(d for d, _ in given), onednn=any(o for _, o in given))


def check_float32() -> None:
    """Raises `InputError` where JAX takes float64 for what is asked for as float.

    A state has no such values: what was saved would look damaged, and what is saved would be.
    """
    if jnp.result_type(float) == jnp.float64:
        raise InputError(
            "JAX_ENABLE_X64=1: weights and checkpoints are float32; unset it in the environment, "
            "or JAX's option jax_enable_x64"
        )


def _add_xla_flags(flags: dict[str, str]) -> None:
    given = os.environ.get("XLA_FLAGS", "")
    new = [f"--{name}={value}" for name, value in flags.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *new]).strip()


def _keep_compiled_programs() -> None:
    """What takes over a second to compile is kept for the next run, in the user's cache folder.

    Where there is no such folder, it is compiled anew.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError, RuntimeError):  # No home, or one that cannot be written.
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        folder = caches / "resnet_jax"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _use_cores_as_devices() -> None:
    """On a CPU, JAX sees each core as a device: on one device XLA:CPU leaves cores idle."""
    in_flags = "xla_force_host_platform_device_count" in os.environ["XLA_FLAGS"]
    if jax.config.values["jax_num_cpu_devices"] < 1 and not in_flags:
        jax.config.update("jax_num_cpu_devices", num_cores())


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_process_at_a_time() -> bool:
    """Whether JAX's device may be a TPU: a second process would compute on the CPU, unnoticed."""
    platforms = os.environ.get("JAX_PLATFORMS")
    return machine.has_tpu_library() and (not platforms or "tpu" in platforms)
