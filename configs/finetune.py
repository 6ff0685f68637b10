r"""Your own images, on the weights of a network that has been trained before.

    python -m experiments.train --workdir=runs/pets \
        --config=configs/finetune.py:init_from=runs/akamaster-20,data_dir=pictures

`init_from` is a run's folder: one of `experiments.convert`, or of any run here. Its network, its
colours' mean and deviation, and whether it mirrors images are taken over; its classifier is
replaced by a new one for the classes in `data_dir/train/`. ("pixel" and "channel" are then
statistics of the new images.) The whole network learns, at a tenth of the usual learning rate. What
is named in `freeze` stays as it is:

    …:init_from=runs/akamaster-20,data_dir=pictures,freeze=stem+stage1+stage2+batch_norm

The first run may go once the new one has saved a checkpoint. To resume it then, name its own folder
in place of the first, which `init_from` of the config still is:

    python -m experiments.train --workdir=runs/pets --config.init_from=runs/akamaster-20 \
        --config=configs/finetune.py:init_from=runs/pets,data_dir=pictures

Images become squares of `dataset.image_size`: 32 pixels for CIFAR networks, 224 for ImageNet
networks, or what the first run had.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import cifar10
from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.runs import arguments, read_run

IMAGE_SIZES = {"cifar": 32, "imagenet": 224}  # by stem


def get_config(argument: str | None = None) -> ConfigDict:
    """The config of "init_from=RUN,data_dir=PICTURES[,freeze=…][,key=value…]".

    Raises `InputError` without `init_from`, or if there is no such run.
    """
    name, fields = arguments.split(argument, "")
    if name:
        raise InputError(
            f"config argument {name!r}: the network is that of the run in init_from=RUN"
        )
    start = fields.pop("init_from", None)
    if start is None:
        raise InputError(
            "config argument init_from=None: name the folder of a trained run, init_from=RUN"
        )
    theirs = _config_of(str(start))
    config = cifar10.recipe(theirs["model"]["name"])
    config.init_from = str(start)
    config.model.update({k: v for k, v in theirs["model"].items() if v is not None})
    config.model.bn_group_size = 32
    config.dataset.name = "image_folder"
    config.dataset.data_dir = fields.pop("data_dir", None)
    for field in ("mean", "std", "flip"):
        config.dataset[field] = theirs["dataset"][field]
    size = theirs["dataset"].get("image_size") or IMAGE_SIZES[_stem(theirs["model"])]
    config.dataset.image_size = fields.get("dataset.image_size", size)
    config.dataset.crop_padding = config.dataset.image_size // 8

    config.batch_size = 32
    config.num_steps = 1000
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.01
    config.schedule.warmup = "linear"
    config.schedule.warmup_steps = 50
    config.log_every = 20
    config.evaluate_every = 200
    config.checkpoint_every = 200
    return arguments.update(config, fields)


def _config_of(start: str) -> dict[str, Any]:
    config = read_run(Path(start).expanduser()).config
    if not {"model", "dataset"} <= config.keys():
        raise InputError(
            f"init_from={start!r}: no run in this folder (no config.json of one); to resume a run "
            "that began from it: init_from=FOLDER-OF-THAT-RUN here, and beside it "
            f"--config.init_from={start}"
        )
    return config


def _stem(model: dict[str, Any]) -> str:
    return zoo.describe(model["name"]).stem
