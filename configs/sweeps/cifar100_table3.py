"""Original and pre-activation bottleneck networks on CIFAR-100 (v2 Table 3), five seeds.

    python -m experiments.sweep --config=configs/sweeps/cifar100_table3.py --workdir=runs/cifar100

About 21 days a seed on two CPU cores, reckoned from the 6 hours of ResNet-20 by multiply-adds: a
sweep for accelerators.
"""

TITLE = "CIFAR-100: original and pre-activation residual networks"
PAPER = "v2 Table 3"
RECIPE = "paper"
CONFIG = "configs/cifar100.py"
COMMON = {"schedule.warmup": "constant"}  # v2: rate .01 for the first 400 steps of every run

NETS = ("resnet-164", "preact-resnet-164", "resnet-1001", "preact-resnet-1001")


def get_sweep(seeds=5):
    for seed in range(seeds):
        for name in NETS:
            yield {"model.name": name, "seed": seed}
