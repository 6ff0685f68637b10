"""Training and test error against depth on Fashion-MNIST, three seeds.

    python -m experiments.sweep --config=configs/sweeps/fashion_mnist_depth.py \\
        --workdir=runs/fashion-depth

About a day a seed on two CPU cores, reckoned from the 1.5 hours of ResNet-20 by multiply-adds.
"""

TITLE = "Fashion-MNIST: plain and residual networks by depth"
PAPER = None
RECIPE = "other"
CONFIG = "configs/fashion_mnist.py"


def get_sweep(seeds=3):
    for seed in range(seeds):
        for depth in (20, 32, 44, 56):
            for family in ("plain", "resnet"):
                yield {"model.name": f"{family}-{depth}", "seed": seed}
