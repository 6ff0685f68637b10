"""The order of a block's layers: every row of v2 Table 2, ResNet-110 and -164, five seeds.

    python -m experiments.sweep --config=configs/sweeps/cifar10_identity_table2.py \\
        --workdir=runs/identity-table2

About 15 days a seed on two CPU cores, reckoned from the 6 hours of ResNet-20 by multiply-adds: a
sweep for accelerators.
"""

TITLE = "CIFAR-10: orders of normalisation, activation and addition"
PAPER = "v2 Table 2"
RECIPE = "paper"
CONFIG = "configs/cifar10.py"
COMMON = {"schedule.warmup": "constant"}  # v2: rate .01 for the first 400 steps of every run

ORDERS = ("original", "bn_after_add", "relu_before_add", "relu_only_preact", "full_preact")


def get_sweep(seeds=5):
    for seed in range(seeds):
        for name in ("resnet-110", "resnet-164"):
            for order in ORDERS:
                yield {"model.name": name, "model.order": order, "seed": seed}
