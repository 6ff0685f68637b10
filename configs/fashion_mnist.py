"""Fashion-MNIST: 28×28 grey images, the papers' CIFAR recipe in 20,000 steps.

    python -m experiments.train --config=configs/fashion_mnist.py:resnet-20 --workdir=runs/fashion

About 1.5 hours for ResNet-20 on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import cifar10
from resnet_jax.runs import arguments


def get_config(argument: str | None = None) -> ConfigDict:
    """The config of "model-name[,key=value…]"; None stands for resnet-20."""
    name, fields = arguments.split(argument, "resnet-20")
    config = cifar10.recipe(name)
    config.dataset.name = "fashion_mnist"
    config.num_steps = 20_000
    return arguments.update(config, fields)
