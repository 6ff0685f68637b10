"""Is it only the learning rate? Plain and residual networks on digits at five rates, three seeds.

    python -m experiments.sweep --config=configs/sweeps/digits_learning_rate.py --workdir=runs/rates

Each network comes without a warm-up and with one of 40 of the 300 steps. Compare networks at their
own best rates, chosen by training error. 240 runs, about two hours on two CPU cores.
"""

TITLE = "Digits: plain and residual networks by depth and learning rate"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"

DEPTHS = (20, 32, 44, 56)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
WARMUPS = ("none", "linear")


def get_sweep(seeds=3):
    for seed in range(seeds):
        for depth in DEPTHS:
            for family in ("plain", "resnet"):
                for warmup in WARMUPS:
                    for rate in RATES:
                        yield {
                            "model.name": f"{family}-{depth}",
                            "schedule.warmup": warmup,
                            "schedule.learning_rate": rate,
                            "seed": seed,
                        }
