"""Evaluates a run's checkpoint on a split and prints the figures as JSON.

    python -m experiments.evaluate --workdir=runs/resnet-20
    python -m experiments.evaluate --workdir=runs/resnet-20 --split=train --step=200
    python -m experiments.evaluate --workdir=runs/resnet-20 --confusion=folder

`--test_crops` shows a net photographs as the papers do: centre, 10-crop, multi-scale (fully
convolutional at five sizes) or single-320. It reads the pictures anew, so it needs an image folder
or a TFDS set whose pictures vary in size. `--recalibrate_batch_norm` puts the mean over the whole
training split in place of batch norm's running averages. `--confusion` writes confusion.csv (a row
for each true class, a column for each answer) and confusion.png into a folder.
"""

import json
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.data.test_crops import VIEWS
from resnet_jax.errors import InputError, check_choice

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "train, validation or test, as the config has them")
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the last one if not given")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")
_VIEWS = flags.DEFINE_string("test_crops", None, f"how photographs are cut: {', '.join(VIEWS)}")
_AVERAGE = flags.DEFINE_string("average", "probabilities", "over views: or logits")
_BATCH_NORM = flags.DEFINE_bool(
    "recalibrate_batch_norm", False, "statistics over the training split, not running averages"
)
_CONFUSION = flags.DEFINE_string("confusion", None, "folder for the confusion matrix")


def main(argv: list[str]) -> None:
    """Prints one JSON object: model, split, step, loss, error (a fraction) and examples."""
    del argv
    if _VIEWS.value is not None:
        check_choice("test_crops", _VIEWS.value, VIEWS)
    elif _AVERAGE.value != "probabilities":
        raise InputError(f"average={_AVERAGE.value!r}: goes with --test_crops; there is one view")
    # Only now, so that wrong flags fail at once.
    from resnet_jax.training import run_evaluation

    answers = run_evaluation.answer(
        Path(_WORKDIR.value),
        _SPLIT.value,
        step=_STEP.value,
        data_dir=_DATA_DIR.value,
        view=_VIEWS.value,
        average=_AVERAGE.value,
        recalibrate_batch_norm=_BATCH_NORM.value,
    )
    if _CONFUSION.value:
        run_evaluation.write_confusion(answers, Path(_CONFUSION.value))
    print(json.dumps(answers.figures()))


if __name__ == "__main__":
    command.run(main)
