"""Where a run departs from the recipe under which the papers' numbers were made."""

from collections.abc import Mapping
from typing import Any

from resnet_jax.reporting import naming
from resnet_jax.reporting.papers import HE, SINGLE_VIEW, Number

_UNSET = {"model.initialization": HE}  # what a field that is None stands for

_BOTH = {
    "init_from": None,
    "freeze": None,
    "label_smoothing": 0.0,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_mask": "kernels",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.max_grad_norm": None,
    "optimizer.layer_decay": 1.0,
    "schedule.name": "steps",
    "schedule.learning_rate": 0.1,
    "schedule.decay_factor": 0.1,
    "model.dtype": "float32",
    "model.initialization": HE,
    "dataset.train": "train",
    "dataset.std": "none",
}

CIFAR = {
    "batch_size": 128,
    "num_steps": 64_000,
    **_BOTH,
    "schedule.boundaries": [0.5, 0.75],
    "model.bn_group_size": 64,
    "dataset.test": "test",
    "dataset.mean": "pixel",
    "dataset.crop_padding": 4,
    "dataset.flip": True,
}
"""v1 §4.2 and v2's appendix, by field of the config; the two differ in the warm-up."""

IMAGENET = {
    "batch_size": 256,
    "num_steps": 500_000,
    **_BOTH,
    "schedule.boundaries": [0.3, 0.6, 0.9],
    "model.bn_group_size": 32,
    "dataset.test": "validation",
    "dataset.mean": "imagenet",
    "dataset.image_size": 224,
    "streaming.augmentation": "scale",
    "streaming.scales": [256, 480],
    "streaming.pca_lighting_std": 0.1,
}
"""v1 §3.4, as `configs/imagenet.py` has it by default. (v1 lowers the learning rate when the error
stands still, in up to 60 × 10⁴ steps: the recipe `plateau` there, which counts as another.)"""

RECIPES = {"cifar10": CIFAR, "cifar100": CIFAR, "imagenet2012": IMAGENET}


def departures(settings: Mapping[str, Any], number: Number) -> list[str]:
    """What differs between a run's flat config and the recipe of a paper's number.

    Each is a phrase such as "num_steps 2,000, not 64,000". A field that the config does not have
    says nothing.
    """
    recipe = RECIPES[number.dataset] | _warmup(number)
    if number.batch_size is not None:
        recipe |= {"batch_size": number.batch_size, **number.recipe}
    phrases = [
        f"{field} {_text(settings[field])}, not {_text(expected)}"
        for field, expected in recipe.items()
        if field in settings and _plain(field, settings[field]) != expected
    ]
    if number.protocol != SINGLE_VIEW:
        phrases.append(f"the paper tests with {number.protocol}")
    return phrases


_WARM = {"schedule.warmup_learning_rate": 0.01}


def _warmup(number: Number) -> dict[str, Any]:
    """v2 warms up for 400 steps (its appendix), v1 its networks of 110 layers and more, till the
    training error is below 80% (§4.2), both at a rate of 0.01; neither does on ImageNet.
    """
    if number.dataset == "imagenet2012":
        return {"schedule.warmup": "none"}
    if number.source.startswith("v2"):
        # v2's baselines of the original order are v1's networks: either warm-up is the paper's.
        preact = number.model.startswith("preact") or number.axes.get("order") == "full_preact"
        warmup = {"schedule.warmup": "constant", "schedule.warmup_steps": 400}
        return warmup | _WARM if preact else {}
    depth = int(number.model.rsplit("-", 1)[1])
    if depth < 110:
        return {"schedule.warmup": "none"}
    return {"schedule.warmup": "until_error", "schedule.warmup_error": 0.8} | _WARM


def _plain(field: str, value: Any) -> Any:
    if value is None:
        return _UNSET.get(field)
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return naming.as_text(value)
