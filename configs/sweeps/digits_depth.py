"""Training and test error against depth on digits: plain and residual, 8 to 56 layers, five seeds.

    python -m experiments.sweep --config=configs/sweeps/digits_depth.py --workdir=runs/digits_depth

90 runs, about two hours on two CPU cores.
"""

TITLE = "Plain and residual networks of 8 to 56 layers on 8×8 digits"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"

DEPTHS = (8, 14, 20, 26, 32, 38, 44, 50, 56)


def get_sweep(seeds=5):
    for seed in range(seeds):
        for depth in DEPTHS:
            for family in ("plain", "resnet"):
                # At 50 layers the bare name is ImageNet's network.
                prefix = "cifar-" if depth == 50 else ""
                yield {"model.name": f"{prefix}{family}-{depth}", "seed": seed}
