"""CIFAR-10 in 4,000 steps, 1/16 of the papers' training: each network at several learning rates.

    python -m experiments.sweep --config=configs/sweeps/cifar10_best_rate.py --workdir=runs/rates

In so few steps one rate for all measures the first epochs and not the depth: at .1, without a
warm-up, ResNet-56 starts far behind ResNet-20.
"""

TITLE = "CIFAR-10 in 4,000 steps: plain and residual networks by learning rate"
PAPER = None
RECIPE = "other"
CONFIG = "configs/cifar10.py"
COMMON = {"num_steps": 4000, "log_every": 80, "evaluate_every": 400, "checkpoint_every": 400}

RATES = (0.1, 0.03, 0.01)
DEPTHS = (20, 56)


def get_sweep(seeds=1):
    for seed in range(seeds):
        for rate in RATES:
            for depth in DEPTHS:
                for family in ("plain", "resnet"):
                    yield {
                        "model.name": f"{family}-{depth}",
                        "schedule.learning_rate": rate,
                        "seed": seed,
                    }
