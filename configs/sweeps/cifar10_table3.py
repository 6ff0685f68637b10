"""Original against pre-activation blocks on CIFAR-10 (v2 Table 3), five seeds.

    python -m experiments.sweep --config=configs/sweeps/cifar10_table3.py --workdir=runs/table3

About 28 days a seed on two CPU cores, reckoned from the 6 hours of ResNet-20 by multiply-adds: a
sweep for accelerators.
"""

TITLE = "CIFAR-10: original and pre-activation residual networks"
PAPER = "v2 Table 3"
RECIPE = "paper"
CONFIG = "configs/cifar10.py"
COMMON = {"schedule.warmup": "constant"}  # v2: rate .01 for the first 400 steps of every run

NETS: tuple[dict, ...] = (
    {"model.name": "resnet-110", "model.block": "one_layer"},  # a skip over one layer
    {"model.name": "preact-resnet-110", "model.block": "one_layer"},
    *(
        {"model.name": f"{family}-{depth}"}
        for depth in (110, 164, 1001)
        for family in ("resnet", "preact-resnet")
    ),
    # As the authors released it: 200 epochs, drops after 80 and 121, on two GPUs.
    {
        "model.name": "preact-resnet-1001",
        "batch_size": 64,
        "model.bn_group_size": 32,
        "model.initialization": "he_normal_fan_out",
        "num_steps": 156_250,
        "schedule.boundaries": (0.4, 0.605),
        "schedule.warmup": "none",
        "optimizer.nesterov": True,
        "optimizer.weight_decay_mask": "all",
        "dataset.mean": "channel",
        "dataset.std": "channel",
    },
)


def get_sweep(seeds=5):
    for seed in range(seeds):
        for net in NETS:
            yield {**net, "seed": seed}
