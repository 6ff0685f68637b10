r"""CIFAR-10 under the papers' recipe (v1 §4.2): 64,000 steps of 128 images.

    python -m experiments.train --config=configs/cifar10.py:resnet-56 --workdir=runs/resnet-56

About 6 hours for ResNet-20 on two CPU cores. A shorter run drops the
learning rate at the same fractions of its length; its warm-up, if the network has one, stays as
long:

    python -m experiments.train --config=configs/cifar10.py:resnet-20,num_steps=2000 \
        --workdir=runs/short

`split=45k/5k` trains on 45,000 images and validates on the other 5,000, as the paper did to find
its schedule; `split=50k`, the default, trains on all:

    python -m experiments.train --config=configs/cifar10.py:resnet-20,split=45k/5k \
        --workdir=runs/validated
"""

from typing import Any

from ml_collections import ConfigDict

from resnet_jax.errors import check_choice
from resnet_jax.models import zoo
from resnet_jax.runs import arguments
from resnet_jax.runs.recipe import blank

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
    """All fields, with the papers' values for that network.

    Those that are not set here are None; `--help_config` of experiments.train tells of all.
    """
    config = blank()
    config.seed = 0

    # Its other fields are the axes of `Architecture`; None is what the name stands for.
    config.model.name = name
    config.model.bn_group_size = 64  # 128 images on two GPUs
    config.model.dtype = "float32"

    config.dataset.name = "cifar10"
    config.dataset.train = "train"
    config.dataset.test = "test"
    config.dataset.mean = "pixel"
    config.dataset.std = "none"
    config.dataset.crop_padding = 4
    config.dataset.flip = True

    config.batch_size = 128
    config.num_steps = 64_000
    config.grad_accum_steps = 1
    config.label_smoothing = 0.0

    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.optimizer.weight_decay_mask = "kernels"
    config.optimizer.layer_decay = 1.0  # of the learning rate, from each layer to the one before it

    config.schedule.name = "steps"
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries = (0.5, 0.75)  # of num_steps: 32k and 48k
    config.schedule.decay_factor = 0.1
    config.schedule.patience = 5  # evaluations
    config.schedule.warmup = _warmup(name)
    config.schedule.warmup_steps = 400
    config.schedule.warmup_learning_rate = 0.01
    config.schedule.warmup_error = 0.8

    config.log_every = 100
    config.evaluate_every = 1000
    config.checkpoint_every = 1000
    config.max_to_keep = 2
    config.save_timeout = 600  # seconds
    config.loggers = "tensorboard"  # or "wandb", "tensorboard,wandb", "none"

    # Where it runs, not what: a run may be continued with other values of these.
    config.parallel = "jit"  # or "pmap"
    config.deterministic = True  # on GPUs: the same bits at every start, but slower
    config.remat = "none"  # or "activations", "blocks": less memory (docs/performance.md)
    config.onednn = True  # on CPUs: faster, but compiled anew at every start
    return config


def _warmup(name: str) -> str:
    """By training error from 110 layers on (v1 §4.2); for 400 steps in v2 (preact)."""
    if name.removeprefix("cifar-").startswith("preact"):
        return "constant"
    return "until_error" if zoo.depth(name) >= 110 else "none"
