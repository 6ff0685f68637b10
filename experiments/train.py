"""Trains the network of a config, or resumes where an earlier process stopped.

    python -m experiments.train --config=configs/digits.py:resnet-20 --workdir=runs/resnet-20
    python -m experiments.train --config=configs/cifar10.py:plain-56 --workdir=runs/plain-56 \\
        --config.seed=1 --config.schedule.learning_rate=0.05

`--help_config` prints every field of the config with its type, value and meaning.

Exit codes: 0 finished (a loss that is not finite is a result: "diverged"), 2 wrong input, 75
stopped by SIGTERM or Ctrl-C with everything saved: rerun the command to resume.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import command
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments
from resnet_jax.runs.recipe import describe_fields
from resnet_jax.runtime import multihost
from resnet_jax.training.run import is_complete, train

_CONFIG = config_flags.DEFINE_config_file("config", None, "what to run, file.py:model-name")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder")
_HELP_CONFIG = flags.DEFINE_bool("help_config", False, "print the config's fields and end")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0 of several; auto: JAX finds out, as on TPU VMs"
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "how many train together; 1: this one alone, whatever the scheduler says"
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "this one's number, from 0")
flags.mark_flag_as_required("config")


def main() -> int:
    """Trains and returns the exit code."""
    config = _CONFIG.value
    if not isinstance(config, ConfigDict):
        raise InputError(f"config: get_config returned {config!r:.80}, not a ConfigDict")
    if _HELP_CONFIG.value:
        for path, kind, value, meaning in describe_fields(Recipe.from_config(config)):
            print(f"{path} = {value!r}  ({kind})\n    {meaning}")
        return 0
    assert _WORKDIR.value  # else its validator has refused
    workdir = Path(_WORKDIR.value)
    # The recipe, which may be wrong, comes once all can hear of it. Older configs lack the fields.
    join(deterministic=config.get("deterministic", False), onednn=config.get("onednn", False))
    with multihost.ending_together():
        recipe = Recipe.from_config(config)
        if is_complete(recipe, workdir):
            return 0
        from resnet_jax.runtime import setup  # Only now, because it loads JAX.

        setup.prepare(deterministic=recipe.deterministic, onednn=recipe.onednn)
        if multihost.is_first():
            for line in recipe.without_effect(_fields_given()):
                print(f"note: {line}", flush=True)
        return train(recipe, workdir)


def _fields_given() -> list[str]:
    """The fields of the config that the command sets, behind the colon and by flags."""
    flag = flags.FLAGS["config"]
    fields: dict[str, Any] = {}
    behind_colon = config_flags.get_config_filename(flag).partition(":")[2]
    with contextlib.suppress(InputError):  # A user's own config may read it in another way.
        _, fields = arguments.split(behind_colon, "")
    return [*fields, *config_flags.get_override_values(flag)]


@flags.multi_flags_validator(["workdir", "help_config"], "Flag --workdir must have a value.")
def _has_workdir(values: dict) -> bool:
    return values["workdir"] is not None or values["help_config"]


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
