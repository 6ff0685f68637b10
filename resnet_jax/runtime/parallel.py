"""Over which devices a run is spread: data parallelism over one mesh axis."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from resnet_jax.errors import InputError, wrong_environment

AXIS = "data"

_KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
_INSTRUCTION = re.compile(rf"= (?P<shape>.+?) (?P<kind>{_KINDS})(?:-start)?\(")
_CONVOLUTION = re.compile(r'custom_call_target="(?P<kernel>__\w+\$conv\w*)"|\sconvolution\(')
_ARRAY = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d*)\[(?P<sizes>[\d,]*)\]")


def make_mesh(
    batch_size: int, num_groups: int, num_devices: int | None = None, *, num_parts: int = 1
) -> Mesh:
    """A mesh of devices that share each batch.

    Args:
      batch_size: examples a batch, or a part of one.
      num_groups: batch-norm statistics groups a batch.
      num_devices: how many devices, the same number from each process; None for as many
        accelerators as can share a batch, or for as many CPU cores as can share the groups, so that
        no statistics need communication.
      num_parts: how many such parts the config's batch has, for the message.

    Raises:
      InputError: there are no or not that many devices, or they cannot share a batch evenly.
    """
    available, processes = devices(), jax.process_count()
    if num_devices is None:
        whole = num_groups if available[0].platform == "cpu" else batch_size
        num_devices = most_devices(whole, len(available), processes)
    if not 1 <= num_devices <= len(available):
        raise InputError(f"num_devices={num_devices}: JAX sees {len(available)}")
    if num_devices % processes:
        raise InputError(
            f"num_devices={num_devices}: {processes} processes need the same number each"
        )
    if batch_size % num_devices:
        what = "it" if num_parts == 1 else f"parts of {batch_size} (batch_size / grad_accum_steps)"
        raise InputError(
            f"batch_size={batch_size * num_parts}: {num_devices} devices cannot share {what} "
            f"evenly; give a multiple of {num_devices * num_parts}, or fewer devices with "
            "num_devices"
        )
    share, by_process = num_devices // processes, collections.defaultdict(list)
    for device in available:
        by_process[device.process_index].append(device)
    chosen = [device for owned in by_process.values() for device in owned[:share]]
    # Not `jax.make_mesh`, which refuses several slices (as nodes of GPUs are) and chips of a TPU
    # that form no cuboid. It orders devices by their links, which one axis does not need: all that
    # is sent is reduced over every device at once, and how, the compiler or NCCL finds out itself.
    return Mesh(np.asarray(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def devices() -> list[jax.Device]:
    """JAX's devices; raises `InputError` if there are none as JAX_PLATFORMS asks for them."""
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise InputError(wrong_environment(error) or str(error)) from error


def most_devices(whole: int, available: int, processes: int = 1) -> int:
    """The most devices, as many of each process, that divide a whole evenly; or all there are."""
    shares = range(processes, available + 1, processes)
    return max((count for count in shares if whole % count == 0), default=available)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device: state, and data that stays on the devices."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Array axis number `axis`, the batch, spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def device_put_global(tree: Any, sharding: Sharding) -> Any:
    """Puts arrays of this process on a mesh's devices.

    Where the mesh has devices of other processes, all of them call this with the same arrays, and
    each puts what is its devices' part: nothing is sent.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    return jax.tree.map(put, tree)


def local_indices(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which rows of a batch the devices of this process have, int [own]."""
    places = sharded(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.concatenate([np.arange(batch_size)[place] for place in places])


def axis_name(engine: str) -> str | None:
    """The axis over which a step takes its means itself; None where the compiler does."""
    return AXIS if engine == "pmap" else None


def local_shard(batch: Any, axis: str | None) -> Any:
    """A device's part of arrays [batch, …], where each device runs its own copy of a function."""
    if axis is None:
        return batch
    number, size = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:])[number], batch)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of a state, data and inputs that, as `jax.jit`'s, is called or lowered.

    Attributes:
      call, lower: of inputs as they are.
      place: makes of inputs what is taken by the program that `lower` and `compile` give.
    """

    call: Callable[[Any, Any, Any], Any]
    lower: Callable[[Any, Any, Any], Any]
    place: Callable[[Any], Any]

    def __call__(self, state: Any, data: Any, inputs: Any) -> Any:
        return self.call(state, data, inputs)


def _jit(function: Callable, mesh: Mesh) -> Program:
    whole, shared = replicated(mesh), sharded(mesh, axis=1)
    compiled = jax.jit(
        function, in_shardings=(whole, whole, shared), out_shardings=whole, donate_argnums=0
    )

    def place(inputs):
        return device_put_global(inputs, shared)

    def run(state, data, inputs):
        return block_on_cpu(compiled(state, data, place(inputs)))

    def lower(state, data, inputs):
        return compiled.lower(state, data, place(inputs))

    return Program(run, lower, place)


def _pmap(function: Callable, mesh: Mesh) -> Program:
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(
        function, AXIS, in_axes=(None, None, 0), out_axes=None, devices=devices, donate_argnums=0
    )
    own = [device.process_index == jax.process_index() for device in devices]

    def place(inputs):
        """[steps, batch, …] -> [devices of this process, steps, batch / devices, …]."""
        deal = lambda leaf: np.stack(np.split(leaf, len(devices), axis=1))[own]
        return jax.tree.map(deal, inputs)

    def whole(leaf):
        """What several processes hold alike is one array again: `pmap` gives each its own."""
        buffers = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, replicated(mesh), buffers)

    def run(state, data, inputs):
        state = block_on_cpu(mapped(state, data, place(inputs)))
        return state if all(own) else jax.tree.map(whole, state)

    def lower(state, data, inputs):
        return mapped.lower(state, data, place(inputs))

    return Program(run, lower, place)


ENGINES: dict[str, Callable[[Callable, Mesh], Program]] = {"jit": _jit, "pmap": _pmap}
"""Compiles `function(state, data, inputs) -> state` for a mesh: the compiler divides it or each
device runs its own copy on its part of the inputs [steps, batch, …]. The state is donated."""


def check_pmap(mesh: Mesh, *, num_groups: int, stochastic: bool) -> None:
    """Raises `InputError` for what `pmap` cannot do with the same numbers as `jit`."""
    if num_groups % mesh.size:
        raise InputError(
            f"parallel='pmap': {mesh.size} devices cannot share {num_groups} batch-norm group(s) "
            "without dividing one; give a smaller model.bn_group_size, fewer devices with "
            "num_devices, or parallel='jit'"
        )
    if stochastic and mesh.size > 1:
        raise InputError(
            "parallel='pmap': what a network drops is drawn for the whole batch; give "
            "num_devices=1 or parallel='jit'"
        )


def block_on_cpu(outputs: Any) -> Any:
    """Returns a computation's outputs; on the CPU, only once it is done.

    XLA:CPU's devices share one pool of threads and wait in it for each other's part of a
    reduction: with a second computation under way they can wait for ever.
    """
    return jax.block_until_ready(outputs) if jax.default_backend() == "cpu" else outputs


def bytes_sent(program: str) -> dict[str, int]:
    """Bytes that each kind of collective operation puts out on a device, each instruction once.

    An instruction within a loop counts once, however often the loop turns.

    Args:
      program: optimised HLO: `jax.jit(f).lower(…).compile().as_text()`.
    """
    total: collections.Counter[str] = collections.Counter()
    for line in program.splitlines():
        found = _INSTRUCTION.search(line)
        if found:
            total[found["kind"]] += sum(map(_num_bytes, _ARRAY.finditer(found["shape"])))
    return dict(total)


def convolution_kernels(program: str) -> dict[str, int]:
    """What computes a program's convolutions: libraries' kernels by name, or XLA's own loops.

    Args:
      program: as of `bytes_sent`.
    """
    found = _CONVOLUTION.finditer(program)
    return dict(collections.Counter(match["kernel"] or "XLA" for match in found))


def _num_bytes(array: re.Match) -> int:
    bits = 8 if array["type"] == "pred" else int(array["bits"])
    return math.prod(int(size) for size in array["sizes"].split(",") if size) * bits // 8
