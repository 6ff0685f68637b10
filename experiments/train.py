"""Trains the network of a config, or resumes where an earlier process stopped.

    python -m experiments.train --config=configs/digits.py:resnet-20 --workdir=runs/resnet-20
    python -m experiments.train --config=configs/cifar10.py:plain-56 --workdir=runs/plain-56 \\
        --config.seed=1 --config.schedule.learning_rate=0.05

`--help_config` prints every field of the config with its type, value and meaning.

Exit codes: 0 finished (a loss that is not finite is a result: "diverged"), 2 wrong input, 75
stopped by SIGTERM or Ctrl-C with everything saved: rerun the command to resume.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import command
from resnet_jax.runs import Recipe
from resnet_jax.runs.recipe import describe_fields
from resnet_jax.runtime import launch
from resnet_jax.training.run import is_complete, train

_CONFIG = config_flags.DEFINE_config_file("config", None, "what to run, file.py:model-name")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder")
_HELP_CONFIG = flags.DEFINE_bool("help_config", False, "print the config's fields and end")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    """Trains and returns the exit code."""
    del argv
    config = _CONFIG.value
    if _HELP_CONFIG.value:
        for path, kind, value, meaning in describe_fields(Recipe.from_config(config)):
            print(f"{path} = {value!r}  ({kind})\n    {meaning}")
        return 0
    workdir = Path(_WORKDIR.value)
    launch.join(deterministic=config.deterministic, onednn=config.onednn)
    with launch.ending_together():
        recipe = Recipe.from_config(config)
        if is_complete(recipe, workdir):
            return 0
        from resnet_jax.runtime import setup  # Only now, because it loads JAX.

        setup.prepare(deterministic=recipe.deterministic, onednn=recipe.onednn)
        return train(recipe, workdir)


@flags.multi_flags_validator(
    ["workdir", "help_config"], "flag --workdir=None: Flag --workdir must have a value."
)
def _has_workdir(values: dict) -> bool:
    return values["workdir"] is not None or values["help_config"]


if __name__ == "__main__":
    command.run(main, launch.tell_others)
