"""Trains the network of a config, or continues where an earlier process stopped.

    python -m experiments.train --config=configs/digits.py:resnet-20 --workdir=runs/resnet-20
    python -m experiments.train --config=configs/cifar10.py:plain-56 --workdir=runs/plain-56 \\
        --config.seed=1 --config.schedule.learning_rate=0.05

Exit codes: 0 finished (a loss that is not finite is a result: "diverged"), 2 wrong input, 75
stopped by SIGTERM or Ctrl-C with everything saved: the same command goes on.
"""

import contextlib
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import command
from resnet_jax.errors import InputError
from resnet_jax.runtime import multihost
from resnet_jax.training.run import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "what to run, file.py:model-name")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0 of several; auto: JAX finds out, as on TPU VMs"
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "how many train together; 1: this one alone, whatever the scheduler says"
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "this one's number, from 0")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Trains and returns the exit code."""
    del argv
    config = _CONFIG.value
    join(deterministic=config.deterministic, onednn=config.onednn)
    with multihost.ending_together():
        return train(config, Path(_WORKDIR.value))


def join(**options: bool) -> None:
    """Joins the other processes if there are any; `options` as of `setup.prepare`."""
    place = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if multihost.is_one_of_several(*place):
        from resnet_jax.runtime import setup  # Only now, because it loads JAX.

        setup.prepare(**options)
        multihost.join(*place)


def tell_others(error: str) -> None:
    """Lets the processes that wait for this one know of an error in its flags."""
    # Those that follow the wrong one have not been read.
    names = tuple(f"--{flag.name}=" for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID))
    with contextlib.suppress(flags.Error):
        flags.FLAGS([sys.argv[0], *[word for word in sys.argv if word.startswith(names)]])
    flags.FLAGS.mark_as_parsed()
    with contextlib.suppress(InputError):
        join()
        multihost.raise_on_all_hosts(error)


if __name__ == "__main__":
    command.run(main, tell_others)
