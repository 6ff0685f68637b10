r"""ImageNet, streamed, under the paper's recipe (v1 §3.4): 256 images of 224² a step.

    python -m experiments.train --config=configs/imagenet.py:resnet-50 --workdir=runs/resnet-50

TFDS's `imagenet2012`, prepared as ArrayRecord; any other set of large images streams likewise:
`dataset.name=NAME,dataset.test=test`. The 50,000 validation images of ImageNet, on which the papers
report, are the test split here, and choose nothing. Recipes, by name:

    configs/imagenet.py:resnet-50                 # the rate ÷ 10 at epochs 30, 60, 90 of 100
    configs/imagenet.py:resnet-50,recipe=plateau  # … when the error on 1% held back stands still
    configs/imagenet.py:resnet-50,recipe=modern,batch_size=2048

`modern` is what later work settled on: a rate in proportion to the batch with five epochs of
linear warm-up, and Nesterov's momentum (Goyal et al. 2017, arXiv:1706.02677); 120 epochs of cosine,
label smoothing, a zero-initialised last scale, no decay of scales and biases (He et al. 2019,
arXiv:1812.01187); crops of random area and aspect, the stride on the 3×3, bfloat16. Give its batch
size after the colon, where the rate and the number of steps follow it. Steps are counted for
ImageNet's images: of another set give `num_steps`, and with `modern` `schedule.warmup_steps`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cifar10
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.architecture import ORDERS
from resnet_jax.runs import arguments
from resnet_jax.runs.recipe import Streaming, blank

NUM_IMAGES = 1_281_167


def get_config(argument: str | None = None) -> ConfigDict:
    """The config of "model-name[,recipe=name][,key=value…]"; None stands for resnet-50."""
    name, fields = arguments.split(argument, "resnet-50")
    chosen = fields.pop("recipe", "paper")
    check_choice("recipe", chosen, RECIPES)
    config = paper(name)
    RECIPES[chosen](config, fields)
    return arguments.update(config, fields)


def paper(name: str) -> ConfigDict:
    """All fields, with v1's values for ImageNet."""
    config = cifar10.recipe(name)
    config.model.bn_group_size = 32  # 256 images on eight GPUs

    config.dataset.name = "imagenet2012"
    config.dataset.test = "validation"
    config.dataset.image_size = 224
    config.dataset.mean = "imagenet"  # of each colour
    config.dataset.crop_padding = 0

    config.streaming = blank(Streaming)
    config.streaming.augmentation = "scale"
    config.streaming.scales = (256, 480)
    config.streaming.shorter_side = 256  # in tests
    config.streaming.pca_lighting_std = 0.1

    config.batch_size = 256
    config.num_steps = 500_000  # 100 epochs
    config.schedule.boundaries = (0.3, 0.6, 0.9)
    config.schedule.warmup = "none"

    config.evaluate_every = 5000  # an epoch
    config.checkpoint_every = 5000
    config.deterministic = False  # On GPUs it forgoes kernels picked by timing.
    return config


def _paper(config: ConfigDict, fields: dict[str, Any]) -> None:
    """As it is."""


def _plateau(config: ConfigDict, fields: dict[str, Any]) -> None:
    config.num_steps = 600_000  # "up to"
    config.dataset.train, config.dataset.validation = "train[:99%]", "train[99%:]"
    config.schedule.name = "plateau"


def _modern(config: ConfigDict, fields: dict[str, Any]) -> None:
    arguments.update(config, {"batch_size": fields.get("batch_size", 1024)})
    if not config.batch_size:
        raise InputError(
            f"config field batch_size={config.batch_size}: the rate and the number of steps follow "
            "it; give a whole number above 0"
        )
    steps_per_epoch = NUM_IMAGES / config.batch_size
    config.num_steps = round(120 * steps_per_epoch)
    config.model.dtype = "bfloat16"
    net = zoo.describe(config.model.name)
    if net.shortcut != "none" and "norm" in ORDERS[net.order].last:
        config.model.zero_init_last = True
    if net.block == "bottleneck":
        config.model.downsample_in = "3x3"
    config.dataset.std = "imagenet"
    config.streaming.augmentation = "random_resized_crop"
    config.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.1 * config.batch_size / 256
    config.schedule.warmup = "linear"
    config.schedule.warmup_steps = round(5 * steps_per_epoch)


RECIPES = {"paper": _paper, "plateau": _plateau, "modern": _modern}
