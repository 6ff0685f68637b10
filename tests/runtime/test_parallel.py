"""Devices share batches evenly, or the reason why not is one line."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from resnet_jax.errors import InputError
from resnet_jax.runtime import parallel


@pytest.mark.parametrize(("num_groups", "devices"), [(1, 1), (2, 2), (3, 3), (6, 6), (16, 8)])
def test_cpu_cores_share_whole_statistics_groups(num_groups, devices):
    assert parallel.make_mesh(48, num_groups).size == devices


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="num_devices=9: JAX sees 8"):
        parallel.make_mesh(9, 9, 9)


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_platform_that_is_not_here_is_one_line(platforms):
    code = "from resnet_jax.runtime import parallel\nparallel.make_mesh(8, 8)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": platforms, "CUDA_VISIBLE_DEVICES": ""},
    )
    last = done.stderr.splitlines()[-1]
    start = f"resnet_jax.errors.InputError: JAX_PLATFORMS={platforms}: JAX finds no such device"
    assert last.startswith(start)


def test_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(InputError, match="batch_size=10: 4 devices cannot share it"):
        parallel.make_mesh(10, 10, 4)


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What `jax.make_mesh` looks at in a device; one node of GPUs is a slice."""

    id: int
    process_index: int
    platform: str
    device_kind: str
    slice_index: int = 0
    coords: tuple[int, ...] = (0, 0, 0)
    core_on_chip: int = 0


GPUS = [Accelerator(i, i // 8, "gpu", "NVIDIA H100", slice_index=i // 8) for i in range(16)]
CHIPS = [Accelerator(i, 0, "tpu", "TPU v5 lite", coords=(i % 2, i // 2, 0)) for i in range(8)]


@pytest.mark.parametrize(
    ("available", "processes", "batch_size", "devices"),
    [(GPUS, 2, 2048, 16), (GPUS, 2, 12, 12), (CHIPS, 1, 128, 8), (CHIPS, 1, 50, 5)],
)
def test_nodes_and_parts_of_a_slice_make_a_mesh(
    available, processes, batch_size, devices, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda: available)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    mesh = parallel.make_mesh(batch_size, 2)
    assert [device.process_index for device in mesh.devices] == sorted(
        [*range(processes)] * (devices // processes)
    )


@pytest.mark.parametrize(
    ("whole", "available", "processes", "devices"),
    [
        (128, 8, 1, 8),
        (128, 6, 1, 4),
        (128, 7, 1, 4),
        (2, 8, 1, 2),
        (128, 24, 2, 16),
        (128, 24, 3, 24),
    ],
)
def test_as_many_devices_as_divide_the_whole(whole, available, processes, devices):
    assert parallel.most_devices(whole, available, processes) == devices
