"""Degradation on scikit-learn's digits, which need no download: plain and residual, 20 and 56.

python -m experiments.sweep --config=configs/sweeps/digits.py --workdir=runs/degradation

About four minutes on two CPU cores, all included.
"""

from collections.abc import Iterator
from typing import Any

TITLE = "Degradation on 8×8 digits"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"


def get_sweep(seeds: int = 1) -> Iterator[dict[str, Any]]:
    """All networks with seed 0, then all with seed 1, and so on."""
    for seed in range(seeds):
        for name in ("plain-56", "resnet-56", "plain-20", "resnet-20"):
            yield {"model.name": name, "seed": seed}
