"""Set up before JAX computes, and only where the user has not done so."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax.runtime import cpu, machine, setup

SETTINGS = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")


def in_a_fresh_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    result = subprocess.run(
        [sys.executable, "-c", f"import os, jax; from resnet_jax.runtime import setup; {code}"],
        capture_output=True,
        text=True,
        check=True,
        env={**kept, **environment},
    )
    return result.stdout.strip()


def test_without_a_place_for_the_cache_there_is_none(tmp_path):
    (tmp_path / "file").touch()
    code = "setup.prepare(); print(jax.config.jax_compilation_cache_dir)"
    assert in_a_fresh_process(code, XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


@pytest.mark.parametrize("number", ["", "3"])
def test_every_core_is_a_device_unless_a_number_is_set(number):
    environment = {"JAX_NUM_CPU_DEVICES": number} if number else {}
    seen = in_a_fresh_process("setup.prepare(); print(len(jax.devices()))", **environment)
    assert seen == (number or str(len(os.sched_getaffinity(0))))


def test_number_of_devices_in_the_users_flags_is_kept():
    code = "setup.prepare(); print(len(jax.devices()))"
    flag = "--xla_force_host_platform_device_count=5"
    assert in_a_fresh_process(code, XLA_FLAGS=flag) == "5"


def test_flags_of_the_user_are_kept():
    code = "setup.prepare(onednn=True); print(os.environ['XLA_FLAGS'])"
    flags = in_a_fresh_process(code, XLA_FLAGS="--xla_cpu_use_onednn=false").split()
    assert "--xla_cpu_use_onednn=false" in flags
    assert sum("xla_cpu_use_onednn=" in flag for flag in flags) == 1


@pytest.mark.parametrize(
    ("version", "is_set"), [((0, 10), False), ((0, 12), True), ((1, 0), False)]
)
def test_onednn_is_asked_for_where_xla_knows_it_and_it_pays(version, is_set, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(cpu, "_jaxlib_version", lambda: version)
    setup.prepare(onednn=True)
    assert ("onednn" in os.environ["XLA_FLAGS"]) == is_set


@pytest.mark.parametrize(
    ("gpu", "tpu", "device", "platforms", "is_set"),
    [
        (False, False, False, "", True),
        (True, False, True, "", False),
        (False, True, True, "", False),
        (True, True, False, "", True),
        (True, False, True, "cpu", True),
        (True, False, True, "cpu,cuda", True),
        (True, False, True, "cuda,cpu", False),
    ],
)
def test_onednn_is_asked_for_on_cpus_alone(gpu, tpu, device, platforms, is_set, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(cpu, "_jaxlib_version", lambda: (0, 12))
    monkeypatch.setattr(machine, "has_gpu_plugin", lambda: gpu)
    monkeypatch.setattr(machine, "has_tpu_library", lambda: tpu)
    monkeypatch.setattr(machine, "_has_device", lambda *names: device)
    setup.prepare(onednn=True)
    assert ("onednn" in os.environ["XLA_FLAGS"]) == is_set


def test_second_process_finds_what_the_first_compiled(tmp_path):
    code = (
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); setup.prepare();"
        "jax.jit(lambda x: x * 2 + 1)(3.0); print(jax.config.jax_compilation_cache_dir)"
    )
    folder = in_a_fresh_process(code, XDG_CACHE_HOME=str(tmp_path))
    assert folder == str(tmp_path / "resnet_jax")
    programs = sorted((tmp_path / "resnet_jax").glob("*-cache"))
    assert programs
    in_a_fresh_process(code, XDG_CACHE_HOME=str(tmp_path))
    assert sorted((tmp_path / "resnet_jax").glob("*-cache")) == programs


def test_deterministic_operations_are_asked_for_where_a_gpu_may_be(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(machine, "has_gpu_plugin", lambda: False)
    setup.prepare(deterministic=True)
    assert "deterministic" not in os.environ["XLA_FLAGS"]
    monkeypatch.setattr(machine, "has_gpu_plugin", lambda: True)
    setup.prepare(deterministic=True)
    assert "--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"]


THREADS = """
import concurrent.futures, ctypes, resource
import experiments.{module}

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def use(size):
    place = ctypes.c_void_p(libc.malloc(size))
    ctypes.memset(place, 1, size)
    libc.free(place)

def in_a_thread(size):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(use, size).result()

in_a_thread(1000)  # As TFDS does, before JAX is set up.
from resnet_jax.runtime import setup
setup.prepare()
in_a_thread(2**27)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread(2**27)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc's malloc")
@pytest.mark.parametrize("module", ["train", "analyze", "evaluate"])
def test_memory_that_a_thread_of_a_command_frees_is_kept(module, tmp_path):
    (tmp_path / "threads.py").write_text(THREADS.format(module=module))
    done = subprocess.run(
        [sys.executable, tmp_path / "threads.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path.cwd())},
    )
    assert int(done.stdout) * 4096 < 2**27 / 16
