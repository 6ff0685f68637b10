"""What all commands have in common, in an environment that lacks something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(main: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = f"from experiments import command\ncommand.run(lambda: {main})"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_what_a_terminal_cannot_show_stops_no_command(environment):
    done = run(r"print('8\N{MULTIPLICATION SIGN}8')", **environment)
    assert (done.returncode, done.stdout) == (0, b"8\\xd78\n"), done.stderr


def test_folder_whose_name_cannot_be_written_is_refused_before_training(tmp_path):
    flags = ["--config=configs/digits.py:plain-8", f"--workdir={tmp_path}/größe"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *flags],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    (line,) = done.stderr.decode().splitlines()
    assert "set PYTHONUTF8=1, or give a name in ASCII" in line


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_device_that_is_missing_is_one_line_wherever_jax_starts(platforms):
    done = run(
        "__import__('jax').process_index()", JAX_PLATFORMS=platforms, CUDA_VISIBLE_DEVICES=""
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={platforms}: JAX finds no such device")


def test_variable_of_jax_without_a_value_of_its_own_is_one_line():
    done = run("__import__('jax')", JAX_NUM_CPU_DEVICES="abc")
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith('error: Invalid value "abc" for JAX flag jax_num_cpu_devices')


def test_error_of_any_other_origin_is_a_bug():
    done = run("next(iter(()), 1 / 0)")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
