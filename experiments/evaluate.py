"""Evaluates a run's checkpoint on a split and prints the metrics as JSON.

    python -m experiments.evaluate --workdir=runs/resnet-20
    python -m experiments.evaluate --workdir=runs/resnet-20 --split=train --step=200
    python -m experiments.evaluate --workdir=runs/resnet-20 --split='train[:1000]'
    python -m experiments.evaluate --workdir=runs/resnet-20 --confusion=folder

`--test_crops` shows the network images as the papers do: centre, 10-crop, multi-scale (fully
convolutional at five sizes) or single-320. It reads the images anew, so it needs an image folder
or a TFDS set whose images vary in size. `--recalibrate_batch_norm` puts the mean over the whole
training split in place of batch norm's running averages. `--confusion` writes confusion.csv (a row
for each true class, a column for each prediction) and confusion.png into a folder.
"""

import json
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.data.image_ops import TEST_CROPS
from resnet_jax.errors import InputError, check_choice
from resnet_jax.runs import as_json, load_recipe

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_SPLIT = flags.DEFINE_string(
    "split", "test", "the config's train, validation or test, or a slice in TFDS's syntax"
)
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the last one if not given")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")
_CROPS = flags.DEFINE_string("test_crops", None, f"how images are cut: {', '.join(TEST_CROPS)}")
_AVERAGE = flags.DEFINE_string("average", "probabilities", "over crops: or logits")
_RECALIBRATE = flags.DEFINE_bool(
    "recalibrate_batch_norm", False, "statistics over the training split, not running averages"
)
_CONFUSION = flags.DEFINE_string("confusion", None, "folder for the confusion matrix")


def main() -> None:
    """Prints one JSON object: model, split, step, loss, error (a fraction) and examples.

    A loss that is not finite is null.
    """
    if _CROPS.value is not None:
        check_choice("test_crops", _CROPS.value, TEST_CROPS)
    elif _AVERAGE.value != "probabilities":
        raise InputError(f"average={_AVERAGE.value!r}: goes with --test_crops; there is one crop")
    load_recipe(Path(_WORKDIR.value))
    # Only now, so that wrong flags and folders fail at once.
    from resnet_jax.reporting.predictions import write_confusion
    from resnet_jax.runtime import setup
    from resnet_jax.training import inference

    setup.prepare()
    predictions = inference.evaluate(
        Path(_WORKDIR.value),
        _SPLIT.value,
        step=_STEP.value,
        data_dir=_DATA_DIR.value,
        view=_CROPS.value,
        average=_AVERAGE.value,
        recalibrate_batch_norm=_RECALIBRATE.value,
    )
    metrics = predictions.metrics()
    print(json.dumps(as_json(metrics)), flush=True)
    if _CONFUSION.value:
        write_confusion(
            Path(_CONFUSION.value),
            predictions.labels,
            predictions.classes,
            predictions.class_names,
            f"{metrics['model']}, {metrics['split']} split",
        )


if __name__ == "__main__":
    command.run(main)
