"""Is the gradient's explosion at the start the cause? Interventions on plain-56 on digits.

    python -m experiments.sweep --config=configs/sweeps/digits_explosion.py --workdir=runs/explosion

Batch norm and ReLU make the gradient of an untrained plain network grow from each layer to the one
before it. Each intervention takes something from that, and only the warm-ups have a warm-up. Beside
them plain-56 as it is, and resnet-56. 48 runs of three seeds, about 40 minutes on two CPU cores.
"""

TITLE = "Digits: plain-56 with interventions on its gradient's growth"
PAPER = None
RECIPE = "other"
CONFIG = "configs/digits.py"
COMMON = {"schedule.warmup": "none"}

INTERVENTIONS: tuple[dict, ...] = (
    {},
    *({"schedule.warmup": "linear", "schedule.warmup_steps": n} for n in (10, 20, 40, 80, 160)),
    *({"optimizer.max_grad_norm": norm} for norm in (0.1, 0.3, 1.0)),
    *({"optimizer.layer_decay": decay} for decay in (0.95, 0.9, 0.86, 0.82)),
    {"model.activation": "tanh"},
    {"model.initialization": "looks_linear"},
)


def get_sweep(seeds=3):
    for seed in range(seeds):
        for intervention in INTERVENTIONS:
            yield {"model.name": "plain-56", **intervention, "seed": seed}
        yield {"model.name": "resnet-56", "seed": seed}
