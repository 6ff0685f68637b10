"""The bytes of the table are read from the program for eight CPU devices, whatever is there."""

import os
import subprocess
import sys

CODE = """
import jax
from benchmarks import scaling_model
scaling_model.WORK = ()
scaling_model.main()
print(jax.default_backend(), jax.device_count())
"""


def test_eight_cpu_devices_serve_where_there_are_accelerators():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "cpu 8"
