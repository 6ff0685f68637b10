r"""CIFAR-10 under the papers' recipe (v1 §4.2): 64,000 steps of 128 images.

    python -m experiments.train --config=configs/cifar10.py:resnet-56 --workdir=runs/resnet-56

About 6 hours for ResNet-20 on two CPU cores. A shorter run keeps the shape of the schedule:

    python -m experiments.train --config=configs/cifar10.py:resnet-20,num_steps=2000 \
        --workdir=runs/short

`split=45k/5k` trains on 45,000 images and validates on the other 5,000, as the paper did to find
its schedule; `split=50k`, the default, trains on all:

    python -m experiments.train --config=configs/cifar10.py:resnet-20,split=45k/5k \
        --workdir=runs/validated
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from resnet_jax.errors import check_choice
from resnet_jax.models import zoo
from resnet_jax.runs import arguments

SPLITS = {
    "50k": {"train": "train", "validation": None},
    "45k/5k": {"train": "train[:45000]", "validation": "train[45000:]"},
}


def get_config(argument: str | None = None) -> ConfigDict:
    """The config of "model-name[,split=45k/5k][,key=value…]"; None stands for resnet-20."""
    config, fields = begin(argument)
    return arguments.update(config, fields)


def begin(argument: str | None) -> tuple[ConfigDict, dict[str, Any]]:
    """The recipe for the argument's network, with the split that it names, and its other fields."""
    name, fields = arguments.split(argument, "resnet-20")
    split = fields.pop("split", "50k")
    check_choice("split", split, SPLITS)
    config = recipe(name)
    config.dataset.update(SPLITS[split])
    return config, fields


def recipe(name: str) -> ConfigDict:
    """All fields, with the papers' values for that network."""
    config = ConfigDict()
    config.seed = 0

    config.model = _model(name)
    config.dataset = _dataset()

    config.init_from = placeholder(str)  # a run whose weights, but the classifier's, are the first
    config.freeze = placeholder(str)  # what stays as it is, e.g. "stem+stage1+batch_norm"

    config.batch_size = 128
    config.num_steps = 64_000
    config.grad_accum_steps = 1
    config.label_smoothing = 0.0

    config.optimizer = _optimizer()
    config.schedule = _schedule(name)

    config.log_every = 100
    config.evaluate_every = 1000
    config.checkpoint_every = 1000
    config.max_to_keep = 2
    config.loggers = "tensorboard"  # or "wandb", "tensorboard,wandb", "none"

    # Where it runs, not what: a run may be continued with other values of these.
    config.num_devices = placeholder(int)
    config.steps_per_dispatch = placeholder(int)
    config.parallel = "jit"  # or "pmap"
    config.deterministic = True  # on GPUs: the same bits at every start, but slower
    config.remat = (
        "none"  # or "activations", "blocks": less memory, more work (docs/performance.md)
    )
    config.scan_blocks = zoo.depth(name) > 200  # compiled once for all that are alike, but slower
    config.onednn = True  # on CPUs: faster, but compiled anew at every start
    return config


def _model(name: str) -> ConfigDict:
    model = ConfigDict()
    model.name = name
    model.bn_group_size = 64  # 128 images on two GPUs
    model.dtype = "float32"
    # The axes of `Architecture`; None is what the name stands for.
    model.block = placeholder(str)
    model.shortcut = placeholder(str)
    model.option = placeholder(str)
    model.option_a_padding = placeholder(str)
    model.order = placeholder(str)
    model.norm = placeholder(str)
    model.activation = placeholder(str)
    model.width = placeholder(int)
    model.downsample_in = placeholder(str)
    model.initialization = placeholder(str)
    model.parameterization = placeholder(str)
    model.zero_init_last = placeholder(bool)
    model.shortcut_scale = placeholder(float)
    model.branch_scale = placeholder(float)
    model.gate_bias = placeholder(float)
    model.dropout_rate = placeholder(float)
    model.tat_eta = placeholder(float)
    return model


def _dataset() -> ConfigDict:
    dataset = ConfigDict()
    dataset.name = "cifar10"
    dataset.data_dir = placeholder(str)  # None: where TFDS keeps its data sets
    dataset.image_size = placeholder(int)  # of an image folder
    dataset.train = "train"
    dataset.validation = placeholder(str)
    dataset.test = "test"
    dataset.mean = "pixel"
    dataset.std = "none"
    dataset.crop_padding = 4
    dataset.flip = True
    dataset.exif_orientation = False  # True turns images as viewers do; ImageNet's must not be
    return dataset


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.momentum = 0.9
    optimizer.nesterov = False
    optimizer.weight_decay = 1e-4
    optimizer.weight_decay_mask = "kernels"
    optimizer.max_grad_norm = placeholder(float)  # None: no clipping
    optimizer.layer_decay = 1.0  # of the learning rate, from each layer to the one before it
    return optimizer


def _schedule(name: str) -> ConfigDict:
    schedule = ConfigDict()
    schedule.name = "steps"
    schedule.learning_rate = 0.1
    schedule.boundaries = (0.5, 0.75)  # of num_steps: 32k and 48k
    schedule.decay_factor = 0.1
    schedule.patience = 5  # evaluations
    schedule.warmup = _warmup(name)
    schedule.warmup_steps = 400
    schedule.warmup_learning_rate = 0.01
    schedule.warmup_error = 0.8
    return schedule


def _warmup(name: str) -> str:
    """By training error from 110 layers on (v1 §4.2); for 400 steps in v2 (preact)."""
    if name.startswith("preact"):
        return "constant"
    return "until_error" if zoo.depth(name) >= 110 else "none"
