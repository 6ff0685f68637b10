"""Evaluates a run's checkpoint on a split and prints the figures as JSON.

python -m experiments.evaluate --workdir=runs/resnet-20
python -m experiments.evaluate --workdir=runs/resnet-20 --split=train --step=200
"""

import json
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.errors import check_choice

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "train, validation or test, as the config has them")
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the last one if not given")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")


def main(argv: list[str]) -> None:
    """Prints one JSON object: model, split, step, loss, error (a fraction) and examples."""
    del argv
    # Only now, so that wrong flags fail at once.
    from experiments import experiment
    from resnet_jax.training.checkpoints import Checkpoints

    workdir = Path(_WORKDIR.value)
    config = experiment.load_config(workdir)
    config.num_devices = None  # Those of this machine, not of the one that trained.
    config.update(parallel="jit", deterministic=False, onednn=False)  # They concern training alone.
    if _DATA_DIR.value:
        config.dataset.data_dir = _DATA_DIR.value
    run = experiment.build(config)
    check_choice("split", _SPLIT.value, run.splits)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(run.state_template(), _STEP.value)
    data = run.splits[_SPLIT.value]
    figures = run.make_evaluate()(state.variables, data)
    about = {"model": config.model.name, "split": _SPLIT.value, "step": int(state.step)}
    print(json.dumps({**about, **figures, "examples": len(data)}))


if __name__ == "__main__":
    command.run(main)
