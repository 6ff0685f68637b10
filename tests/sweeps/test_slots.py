"""Workers share the machine: one GPU each, or as many cores each as all others."""

import os
import subprocess
import sys

import pytest
from jaxlib import xla_client

from resnet_jax.errors import InputError
from resnet_jax.sweeps import local_pool
from resnet_jax.sweeps.local_pool import slots

pinning = pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def become(platform: str, count: int, cores: int = 8, is_rocm: bool = False) -> None:
        monkeypatch.setattr(local_pool, "_probe", lambda: (platform, count, is_rocm))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        for name in ("CUDA", "HIP", "ROCR"):
            monkeypatch.delenv(f"{name}_VISIBLE_DEVICES", raising=False)

    return become


@pinning
@pytest.mark.parametrize(
    ("num_runs", "workers", "cores"),
    [
        (4, None, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (100, None, [(core,) for core in range(8)]),
        (100, 2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (1, None, [tuple(range(8))]),
        (4, 9, [(core,) for core in (*range(8), 0)]),
        (5, None, [(0, 1), (2, 3), (4, 5), (6,), (7,)]),  # None idle: each run has its own slot.
        (9, 5, [(core,) for core in range(5)]),  # A run that resumes finds as many cores again.
    ],
)
def test_cores_are_shared_out_evenly(machine, num_runs: int, workers: int | None, cores: list):
    machine("cpu", 1)
    assert [slot.cores for slot in slots(num_runs, workers)] == cores


def test_each_gpu_has_a_worker(machine):
    machine("gpu", 2)
    seen = [slot.environment for slot in slots(10)]
    assert seen == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]


@pinning
@pytest.mark.parametrize(
    ("num_runs", "cores", "shares"),
    [
        (10, 8, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (10, 1, [(), ()]),  # too few to share: both may use all
    ],
)
def test_streams_on_several_gpus_share_the_cores(machine, num_runs: int, cores: int, shares: list):
    machine("gpu", 2, cores)
    assert [slot.cores for slot in slots(num_runs)] == shares


@pinning
def test_one_run_on_a_machine_of_several_gpus_has_all_cores(machine):
    machine("gpu", 2)
    assert slots(1)[0].cores == tuple(range(8))


def test_only_the_visible_gpus_are_given_out(machine, monkeypatch: pytest.MonkeyPatch):
    machine("gpu", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(10)] == ["5", "7"]


@pinning
@pytest.mark.parametrize(
    ("num_runs", "cores"), [(1, [(0, 1)]), (2, [(0,), (1,)]), (3, [(0,), (1,)])]
)
def test_two_cores_have_a_worker_each_or_one_both(machine, num_runs: int, cores: list):
    machine("cpu", 1, cores=2)
    assert [slot.cores for slot in slots(num_runs)] == cores


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ["0", "1"]),
        ({"HIP_VISIBLE_DEVICES": "4,6"}, ["4", "6"]),
        ({"CUDA_VISIBLE_DEVICES": "5,7"}, ["5", "7"]),  # which AMD's runtime takes, too
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, ["0", "1"]),  # numbers anew what HIP then names
    ],
)
def test_each_of_amds_gpus_has_a_worker(machine, monkeypatch, given: dict, names: list):
    machine("gpu", 2, is_rocm=True)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert [slot.environment for slot in slots(10)] == [
        {"HIP_VISIBLE_DEVICES": name} for name in names
    ]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("", -9, "killed by SIGKILL"),
        ("", 1, "exit code 1"),
        ("a\nAssertionError\n", 1, "no such device"),
        ("a\nRuntimeError: no driver\n", 1, "no driver"),
    ],
)
def test_probe_that_finds_no_device_is_one_line(monkeypatch, error: str, code: int, message: str):
    ended = subprocess.CompletedProcess([], code, stdout="", stderr=error)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: ended)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(InputError, match=rf"finds no device \(JAX_PLATFORMS=cuda\): .*{message}"):
        slots(4)


@pytest.mark.parametrize("given", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_workers_that_share_a_gpu_share_its_memory(machine, monkeypatch, given: str):
    machine("gpu", 1)
    monkeypatch.setenv(given, "0.5")
    shared = slots(10, 3)
    assert len(shared) == 3
    for slot in shared:
        for name, value in slot.environment.items():
            monkeypatch.setenv(name, value)
        assert xla_client.generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.3


def test_tpu_host_has_one_worker(machine):
    machine("tpu", 4)
    assert len(slots(10)) == 1
    with pytest.raises(InputError, match="one process has all chips"):
        slots(10, 2)


def test_no_worker_is_no_choice(machine):
    machine("cpu", 1)
    with pytest.raises(InputError, match="workers=0: must be at least 1"):
        slots(4, 0)
