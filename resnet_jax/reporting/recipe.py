"""Where a run departs from the recipe under which the papers' numbers were made."""

from collections.abc import Mapping
from typing import Any

from resnet_jax.reporting.papers import SINGLE_VIEW, Number

CIFAR = {
    "batch_size": 128,
    "num_steps": 64_000,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "learning_rate": 0.1,
}
"""v1 §4.2 and v2's appendix."""

IMAGENET = {"batch_size": 256, "num_steps": 600_000, "weight_decay": 1e-4, "momentum": 0.9}
"""v1 §3.4."""

RECIPES = {"cifar10": CIFAR, "cifar100": CIFAR, "imagenet2012": IMAGENET}


def departures(settings: Mapping[str, Any], number: Number) -> list[str]:
    """What differs between a run's flat config and the recipe of a paper's number.

    Each is a phrase such as "num_steps 2,000, not 64,000". A field counts wherever it stands in
    the config (`optimizer.weight_decay`, `schedule.learning_rate`), and one that the config does
    not have says nothing.
    """
    recipe = dict(RECIPES[number.dataset])
    if number.batch_size is not None:
        recipe["batch_size"] = number.batch_size
    phrases = []
    for field, expected in recipe.items():
        for key, value in settings.items():
            if key.rsplit(".", 1)[-1] == field and value != expected:
                phrases.append(f"{field} {_text(value)}, not {_text(expected)}")
    if number.protocol != SINGLE_VIEW:
        phrases.append(f"the paper tests with {number.protocol}")
    return phrases


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
