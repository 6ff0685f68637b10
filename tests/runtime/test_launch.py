"""Several processes are joined where a scheduler started several, and nowhere else."""

import subprocess
import sys

import pytest

from resnet_jax.runtime import multihost

ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        (ALLOCATION, False),  # a batch script
        ({**ALLOCATION, "SLURM_STEP_NODELIST": "a", "SLURM_STEP_NUM_TASKS": "1"}, False),  # a shell
        ({**ALLOCATION, "SLURM_STEP_NODELIST": "a", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "t-0", "MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)
def test_what_counts_is_the_processes_of_this_very_start(environment, several):
    assert multihost.scheduled(environment) == several


def test_process_on_its_own_loads_no_jax_to_find_that_out():
    code = (
        "import sys; from absl import flags; from experiments import train;"
        "flags.FLAGS(['x', '--config=configs/digits.py', '--workdir=x']); train.join();"
        "print('jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
