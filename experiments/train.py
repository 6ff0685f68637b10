"""Trains the network of a config, or continues where an earlier process stopped.

    python -m experiments.train --config=configs/digits.py:resnet-20 --workdir=runs/resnet-20
    python -m experiments.train --config=configs/cifar10.py:plain-56 --workdir=runs/plain-56 \\
        --config.seed=1 --config.schedule.learning_rate=0.05

Exit codes: 0 finished (a loss that is not finite is a result: "diverged"), 2 wrong input, 75
stopped by SIGTERM or Ctrl-C with everything saved: the same command goes on.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import command
from resnet_jax.runtime import launch
from resnet_jax.training.run import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "what to run, file.py:model-name")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Trains and returns the exit code."""
    del argv
    config = _CONFIG.value
    launch.join(deterministic=config.deterministic, onednn=config.onednn)
    with launch.ending_together():
        return train(config, Path(_WORKDIR.value))


if __name__ == "__main__":
    command.run(main, launch.tell_others)
