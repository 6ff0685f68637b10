"""What may stand on the shortcut: every row of v2 Table 1, ResNet-110 on CIFAR-10, five seeds.

    python -m experiments.sweep --config=configs/sweeps/cifar10_identity_table1.py \\
        --workdir=runs/identity-table1

About 26 days a seed on two CPU cores, reckoned from the 6 hours of ResNet-20 by multiply-adds: a
sweep for accelerators.
"""

TITLE = "CIFAR-10: ResNet-110 with other shortcuts"
PAPER = "v2 Table 1"
RECIPE = "paper"
CONFIG = "configs/cifar10.py"
COMMON = {"schedule.warmup": "constant"}  # v2: rate .01 for the first 400 steps of every run

ROWS: tuple[dict, ...] = (
    {"model.shortcut": "identity"},
    *(
        {"model.shortcut": "constant_scaling", "model.shortcut_scale": s, "model.branch_scale": b}
        for s, b in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5))
    ),
    *(
        {"model.shortcut": "exclusive_gating", "model.gate_bias": bias}
        for bias in (0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0)
    ),
    *({"model.shortcut": "shortcut_only_gating", "model.gate_bias": bias} for bias in (0.0, -6.0)),
    {"model.shortcut": "identity", "model.option": "C"},  # the 1×1 convolution
    {"model.shortcut": "dropout", "model.dropout_rate": 0.5},
)


def get_sweep(seeds=5):
    for seed in range(seeds):
        for row in ROWS:
            yield {"model.name": "resnet-110", **row, "seed": seed}
