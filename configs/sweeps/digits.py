"""Degradation on scikit-learn's digits, which need no download: plain and residual, 20 and 56.

python -m experiments.sweep --config=configs/sweeps/digits.py --workdir=runs/degradation

About four minutes on two CPU cores, all included.
"""

TITLE = "Degradation on 8×8 digits"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"


def get_sweep(seeds=1):
    for seed in range(seeds):
        for name in ("plain-56", "resnet-56", "plain-20", "resnet-20"):
            yield {"model.name": name, "seed": seed}
