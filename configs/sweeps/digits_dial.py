"""From plain to residual by λ, y = ReLU(λ x + F(x)), on digits: four depths, three seeds.

    python -m experiments.sweep --config=configs/sweeps/digits_dial.py --workdir=runs/dial

λ = 0 is the plain network, λ = 1 the residual one. 84 runs, about 45 minutes on two CPU cores.
"""

TITLE = "Digits: from plain to residual, y = λx + F(x)"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"
COMMON = {"model.shortcut": "constant_scaling"}

DEPTHS = (20, 32, 44, 56)
LAMBDAS = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 1.0)


def get_sweep(seeds=3):
    for seed in range(seeds):
        for depth in DEPTHS:
            for scale in LAMBDAS:
                yield {"model.name": f"resnet-{depth}", "model.shortcut_scale": scale, "seed": seed}
