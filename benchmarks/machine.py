"""What this machine is, and the rates that it reaches on the simplest work."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.runtime import parallel

REPEATS = 7


def describe() -> str:
    """The processor's name and how many of it JAX uses."""
    devices = jax.devices()
    name = devices[0].device_kind
    if devices[0].platform == "cpu":
        name = _cpu_name()
    return f"{len(devices)} x {name}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"core of {names[0]}" if names else f"core ({platform.machine()})"


def matmul_rate(mesh: jax.sharding.Mesh, dtype: str) -> float:
    """FLOP/s of one large product of random matrices on each of a mesh's devices, all at once.

    Random, because GPUs draw less power on constants and multiply them faster than any real data.
    """
    size = 1024 if jax.default_backend() == "cpu" else 8192
    random = np.random.default_rng(0).standard_normal((size, size), np.float32)
    matrices = np.broadcast_to(random.astype(dtype), (mesh.size, size, size))
    matrices = parallel.device_put_global(matrices, parallel.sharded(mesh))
    product = jax.jit(lambda a: jnp.einsum("dij,djk->dik", a, a))
    return 2 * mesh.size * size**3 / _median_seconds(product, matrices)


def copy_rate(mesh: jax.sharding.Mesh) -> float:
    """Bytes a second, read and written, of adding 1 to a large array on each device at once."""
    numbers = 2**24 if jax.default_backend() == "cpu" else 2**28
    array = parallel.device_put_global(
        np.ones((mesh.size, numbers), np.float32), parallel.sharded(mesh)
    )
    return 2 * array.nbytes / _median_seconds(jax.jit(lambda a: a + 1), array)


def _median_seconds(function: Callable, argument: jax.Array) -> float:
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
