"""Training and test error against depth on CIFAR-10 (v1 Figure 6 and Table 6), five seeds.

    python -m experiments.sweep --config=configs/sweeps/cifar10_figure6.py --workdir=runs/figure6

About 25 days a seed on two CPU cores (18 of them for ResNet-1202), reckoned from the 6 hours of
ResNet-20 by multiply-adds: a sweep for accelerators. The same in small, without ResNet-1202:

    python -m experiments.sweep --config=configs/sweeps/cifar10_figure6.py --workdir=runs/small \\
        --filter='-(20|56)-' --seeds=1 --num_steps=2000
"""

TITLE = "CIFAR-10: plain and residual networks by depth"
PAPER = "v1 Figure 6"
RECIPE = "paper"
CONFIG = "configs/cifar10.py"

PLAIN = (20, 32, 44, 56, 110)
RESIDUAL = (20, 32, 44, 56, 110, 1202)


def get_sweep(seeds=5):
    for seed in range(seeds):
        for depth in PLAIN:
            yield {"model.name": f"plain-{depth}", "seed": seed}
        for depth in RESIDUAL:
            yield {"model.name": f"resnet-{depth}", "seed": seed}
