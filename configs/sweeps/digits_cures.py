"""Plain networks on digits with a cure for degradation, and residual ones without batch norm.

    python -m experiments.sweep --config=configs/sweeps/digits_cures.py --workdir=runs/cures

Each has 20 and 56 layers and three learning rates, of which its best, by training error, is to be
compared; docs/cures.md says what each cure is. 216 runs of three seeds, about two hours on two CPU
cores.
"""

TITLE = "Digits: cures for degradation, and residual networks without batch norm"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"

DEPTHS = (20, 56)
RATES = (0.1, 0.03, 0.01)
CURES = {
    "plain": (
        {},
        {"model.parameterization": "dirac"},
        {"model.parameterization": "repvgg"},
        {"model.initialization": "looks_linear"},
        {"model.norm": "none", "model.initialization": "looks_linear"},
        *(
            {
                "model.norm": "none",
                "model.initialization": "delta_orthogonal",
                "model.activation": activation,
            }
            for activation in ("tanh", "tailored_relu")
        ),
    ),
    "resnet": (
        {},
        {"model.norm": "none"},
        {"model.norm": "none", "model.initialization": "fixup"},
        {"model.norm": "none", "model.initialization": "skipinit"},
        {"model.initialization": "skipinit"},
    ),
}


def get_sweep(seeds=3):
    for seed in range(seeds):
        for depth in DEPTHS:
            for family, cures in CURES.items():
                for cure in cures:
                    for rate in RATES:
                        yield {
                            "model.name": f"{family}-{depth}",
                            **cure,
                            "schedule.learning_rate": rate,
                            "seed": seed,
                        }
