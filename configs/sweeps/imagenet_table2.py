"""Plain and residual networks of 18 and 34 layers on ImageNet, option A (v1 Table 2), one seed.

    python -m experiments.sweep --config=configs/sweeps/imagenet_table2.py \\
        --workdir=runs/imagenet-table2

It varies `configs/imagenet.py` and needs ImageNet, prepared as TFDS's `imagenet2012`, and
accelerators: each run is 500,000 steps of 256 images, and on a CPU even --dry_run, which tries a
step, takes many minutes.
"""

TITLE = "ImageNet: plain and residual networks of 18 and 34 layers"
PAPER = "v1 Table 2"
RECIPE = "paper"
CONFIG = "configs/imagenet.py"


def get_sweep(seeds=1):
    for seed in range(seeds):
        for depth in (18, 34):
            yield {"model.name": f"plain-{depth}", "seed": seed}
            yield {"model.name": f"resnet-{depth}", "model.option": "A", "seed": seed}
