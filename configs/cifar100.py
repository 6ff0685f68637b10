"""CIFAR-100 under the papers' recipe (v2 Table 3).

    python -m experiments.train --config=configs/cifar100.py:preact-resnet-164 \\
        --workdir=runs/cifar100-preact-164

As slow as CIFAR-10: about 6 hours for ResNet-20 on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import cifar10
from resnet_jax.runs import arguments


def get_config(argument: str | None = None) -> ConfigDict:
    """The config of "model-name[,split=45k/5k][,key=value…]"; None stands for resnet-20."""
    config, fields = cifar10.begin(argument)
    config.dataset.name = "cifar100"
    config.schedule.warmup = "constant"  # v2, appendix: 400 steps for every network
    return arguments.update(config, fields)
