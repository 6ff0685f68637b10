"""CIFAR-10 in 4,000 steps: the two cures for plain networks that did best on digits.

    python -m experiments.sweep --config=configs/sweeps/cifar10_cures.py --workdir=runs/cures

The schedule is that of cifar10_best_rate.py, whose plain networks are those to compare with; each
cure has the learning rate that was its best on digits at 56 layers. About 40 minutes a run of 20
layers and two hours a run of 56 on one CPU core.
"""

TITLE = "CIFAR-10 in 4,000 steps: plain networks with a cure for degradation"
PAPER = None
RECIPE = "other"
CONFIG = "configs/cifar10.py"
COMMON = {"num_steps": 4000, "log_every": 80, "evaluate_every": 400, "checkpoint_every": 400}

DEPTHS = (56, 20)
CURES = (
    {"model.parameterization": "dirac", "schedule.learning_rate": 0.1},
    {
        "model.norm": "none",
        "model.initialization": "delta_orthogonal",
        "model.activation": "tailored_relu",
        "schedule.learning_rate": 0.01,
    },
)


def get_sweep(seeds=1):
    for seed in range(seeds):
        for depth in DEPTHS:
            for cure in CURES:
                yield {"model.name": f"plain-{depth}", **cure, "seed": seed}
