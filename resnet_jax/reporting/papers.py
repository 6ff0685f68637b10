"""The papers' own numbers, each with its table, and where a run departs from their recipe.

v1 is He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385); v2 is He et
al., "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027). Errors in percent.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_jax.models.architecture import Architecture
from resnet_jax.reporting import naming
from resnet_jax.runs.recipe import as_fractions, plain_name

SINGLE_VIEW = "single view"
HE = "he_normal"


@dataclasses.dataclass(frozen=True)
class Number:
    """An error that a paper states.

    Attributes:
      dataset: TFDS name.
      model: the zoo's name; `axes` are the further `model.*` fields that make it the paper's net.
      error: top-1 in percent; None where the paper gives only a bound.
      above: that bound, in percent.
      source: paper and table.
      statistic: what `error` is: a "single" run, the "mean" or the "median" of several.
      mean, std: over runs, in percent, if given.
      top5: top-5 error in percent, if given.
      protocol: how test images are seen.
      batch_size: where the number belongs to another batch size than the recipe's; `recipe` has
        the further fields of the config that are then other than the recipe's.
    """

    dataset: str
    model: str
    error: float | None
    source: str
    above: float | None = None
    statistic: str = "single"
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: float | None = None
    std: float | None = None
    top5: float | None = None
    protocol: str = SINGLE_VIEW
    batch_size: int | None = None
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _table_6() -> list[Number]:
    single = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 1202: 7.93}
    rows = [Number("cifar10", f"resnet-{n}", e, "v1 Table 6") for n, e in single.items()]
    five_runs: dict[str, Any] = {"statistic": "mean", "mean": 6.61, "std": 0.16}
    rows.append(Number("cifar10", "resnet-110", 6.61, "v1 Table 6", **five_runs))
    # The other plain networks are curves without a number.
    return [*rows, Number("cifar10", "plain-110", None, "v1 Figure 6", above=60.0)]


def _v2(table: str, model: str, error: float | None, dataset: str = "cifar10", **more: Any):
    above = 20.0 if error is None else None  # "fail" in Table 1
    return Number(dataset, model, error, f"v2 {table}", above, "median", **more)


def _shortcuts() -> list[Number]:
    def row(error: float | None, **axes: Any) -> Number:
        return _v2("Table 1", "resnet-110", error, axes=axes)

    def scaling(shortcut: float, branch: float) -> dict[str, Any]:
        return {
            "shortcut": "constant_scaling", "shortcut_scale": shortcut, "branch_scale": branch
        }  # fmt: skip

    return [
        row(6.61),
        row(None, **scaling(0.0, 1.0)),
        row(None, **scaling(0.5, 1.0)),
        row(12.35, **scaling(0.5, 0.5)),
        *(row(None, shortcut="exclusive_gating", gate_bias=-float(b)) for b in range(6)),
        row(8.70, shortcut="exclusive_gating", gate_bias=-6.0),
        row(9.81, shortcut="exclusive_gating", gate_bias=-7.0),
        row(12.86, shortcut="shortcut_only_gating", gate_bias=0.0),
        row(6.91, shortcut="shortcut_only_gating", gate_bias=-6.0),
        row(12.22, option="C"),
        row(None, shortcut="dropout", dropout_rate=0.5),
    ]


def _orders() -> list[Number]:
    table = {
        "original": (6.61, 5.93),
        "bn_after_add": (8.17, 6.50),
        "relu_before_add": (7.84, 6.14),
        "relu_only_preact": (6.71, 5.91),
        "full_preact": (6.37, 5.46),
    }
    return [
        _v2("Table 2", model, error, axes={"order": order})
        for order, errors in table.items()
        for model, error in zip(("resnet-110", "resnet-164"), errors, strict=True)
    ]


def _very_deep() -> list[Number]:
    def row(model: str, error: float, dataset: str = "cifar10", **more: Any) -> Number:
        return _v2("Table 3", model, error, dataset, **more)

    # The authors' release, which stands on fb.resnet.torch: 200 epochs of batches of 64 on two
    # GPUs, and otherwise that code's recipe and not the paper's.
    release = {
        "num_steps": 156_250, "model.bn_group_size": 32, "schedule.boundaries": [0.4, 0.605],
        "schedule.warmup": "none", "optimizer.nesterov": True, "optimizer.weight_decay_mask": "all",
        "dataset.mean": "channel", "dataset.std": "channel",
        "model.initialization": "he_normal_fan_out",
    }  # fmt: skip
    small: dict[str, Any] = {"mean": 4.69, "std": 0.20, "batch_size": 64, "recipe": release}
    # Means and deviations are Table 4's.
    return [
        row("resnet-110", 9.90, axes={"block": "one_layer"}),
        row("preact-resnet-110", 8.91, axes={"block": "one_layer"}),
        row("resnet-110", 6.61),
        row("preact-resnet-110", 6.37),
        row("resnet-164", 5.93),
        row("preact-resnet-164", 5.46),
        row("resnet-1001", 7.61),
        row("preact-resnet-1001", 4.92, mean=4.89, std=0.14),
        _v2("Table 4, the authors' release", "preact-resnet-1001", 4.62, **small),
        row("resnet-164", 25.16, "cifar100"),
        row("preact-resnet-164", 24.33, "cifar100"),
        row("resnet-1001", 27.82, "cifar100"),
        row("preact-resnet-1001", 22.71, "cifar100", mean=22.68, std=0.22),
    ]


def _imagenet() -> list[Number]:
    def row(model: str, error: float, top5: float | None, source: str, protocol: str, **axes: Any):
        return Number("imagenet2012", model, error, source, top5=top5, protocol=protocol, axes=axes)

    release = "v1, the authors' later release"
    multi = "multi-scale"
    return [
        row("resnet-50", 24.7, 7.8, release, SINGLE_VIEW),
        row("resnet-101", 23.6, 7.1, release, SINGLE_VIEW),
        row("resnet-152", 23.0, 6.7, release, SINGLE_VIEW),
        # A plain network has no shortcut for the option to matter; both zoo defaults are listed.
        row("plain-18", 27.94, None, "v1 Table 2", "10-crop"),
        row("plain-18", 27.94, None, "v1 Table 2", "10-crop", option="A"),
        row("resnet-18", 27.88, None, "v1 Table 2", "10-crop", option="A"),
        row("plain-34", 28.54, 10.02, "v1 Table 3", "10-crop"),
        row("plain-34", 28.54, 10.02, "v1 Table 3", "10-crop", option="A"),
        row("resnet-34", 25.03, 7.76, "v1 Table 3", "10-crop", option="A"),
        row("resnet-34", 24.52, 7.46, "v1 Table 3", "10-crop", option="B"),
        row("resnet-34", 24.19, 7.40, "v1 Table 3", "10-crop", option="C"),
        row("resnet-50", 22.85, 6.71, "v1 Table 3", "10-crop"),
        row("resnet-101", 21.75, 6.05, "v1 Table 3", "10-crop"),
        row("resnet-152", 21.43, 5.71, "v1 Table 3", "10-crop"),
        row("resnet-34", 21.84, 5.71, "v1 Table 4", multi, option="B"),
        row("resnet-34", 21.53, 5.60, "v1 Table 4", multi, option="C"),
        row("resnet-50", 20.74, 5.25, "v1 Table 4", multi),
        row("resnet-101", 19.87, 4.60, "v1 Table 4", multi),
        row("resnet-152", 19.38, 4.49, "v1 Table 4", multi),
        row("resnet-152", 21.3, 5.5, "v2 Table 5", "single crop of 320"),
        row("preact-resnet-152", 21.1, 5.5, "v2 Table 5", "single crop of 320"),
        row("resnet-200", 21.8, 6.0, "v2 Table 5", "single crop of 320"),
        row("preact-resnet-200", 20.7, 5.3, "v2 Table 5", "single crop of 320"),
        row("preact-resnet-200", 20.1, 4.8, "v2 Table 5", "320, scale and aspect augmentation"),
    ]


NUMBERS: tuple[Number, ...] = (
    *_table_6(),
    *_shortcuts(),
    *_orders(),
    *_very_deep(),
    *_imagenet(),
)


def lookup(settings: Mapping[str, Any], source: str = "") -> Number | None:
    """The paper's number for a run's flat config, or None.

    Data set and every axis of the network must agree; whether the recipe does, to which initial
    weights belong, is for `recipe_diff` to say. If several numbers fit, one for the run's batch
    size comes first, then one of the table `source`, then one of whose recipe the run departs in
    the fewest fields, then the order of `NUMBERS`. Only single views and 10 crops are compared
    with.
    """
    net = naming.architecture(settings)
    if net is None:
        return None
    dataset = plain_name(str(settings.get("dataset.name")))
    fitting = [
        number
        for number in NUMBERS
        if number.dataset == dataset
        and number.protocol in (SINGLE_VIEW, "10-crop")
        and number.batch_size in (None, settings.get("batch_size"))
        and _layers(_architecture(number)) == _layers(net)
    ]
    rank = lambda number: (
        number.batch_size is not None,
        number.source == source,
        -len(recipe_diff(settings, number)),
    )
    return max(fitting, key=rank, default=None)


def _layers(net: Architecture) -> dict[str, Any]:
    """The axes of a network less its initial weights, which are the recipe's."""
    return {**dataclasses.asdict(net), "initialization": None}


def _architecture(number: Number):
    axes = {f"model.{axis}": value for axis, value in number.axes.items()}
    return naming.architecture({"model.name": number.model, **axes})


_UNSET = {"model.initialization": HE}  # what a field that is None stands for

_BOTH: dict[str, Any] = {
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

CIFAR: dict[str, Any] = {
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

IMAGENET: dict[str, Any] = {
    "batch_size": 256,
    "num_steps": 500_000,
    **_BOTH,
    "schedule.boundaries": [0.3, 0.6, 0.9],
    "model.bn_group_size": 32,
    "dataset.test": "validation",
    "dataset.mean": "imagenet",
    "dataset.image_size": 224,
    "dataset.flip": True,
    "streaming.shorter_side": 256,
    "streaming.augmentation": "scale",
    "streaming.scales": [256, 480],
    "streaming.pca_lighting_std": 0.1,
}
"""v1 §3.4, as `configs/imagenet.py` has it by default. (v1 lowers the learning rate when the error
stands still, in up to 60 × 10⁴ steps: the recipe `plateau` there, which counts as another.)"""

RECIPES = {"cifar10": CIFAR, "cifar100": CIFAR, "imagenet2012": IMAGENET}


def recipe_diff(settings: Mapping[str, Any], number: Number) -> list[str]:
    """What differs between a run's flat config and the recipe of a paper's number.

    Each is a phrase such as "num_steps 2,000, not 64,000". A field that the config does not have
    says nothing.
    """
    own = {} if number.batch_size is None else {"batch_size": number.batch_size, **number.recipe}
    warmups = {warmup["schedule.warmup"]: warmup for warmup in _warmups(number)}
    warmup = warmups.get(settings.get("schedule.warmup"), next(iter(warmups.values())))
    recipe = RECIPES[number.dataset] | warmup | own
    phrases = [
        f"{field} {_text(settings[field])}, not {_text(expected)}"
        for field, expected in recipe.items()
        if field in settings and _plain(field, settings) != expected
    ]
    if number.protocol != SINGLE_VIEW:
        phrases.append(f"the paper tests with {number.protocol}")
    return phrases


_WARM = {"schedule.warmup_learning_rate": 0.01}


def _warmups(number: Number) -> list[dict[str, Any]]:
    """v2 warms up for 400 steps (its appendix), v1 its networks of 110 layers and more, till the
    training error is below 80% (§4.2), both at a rate of 0.01; neither does on ImageNet. Where
    either is the paper's, there are two.
    """
    if number.dataset == "imagenet2012":
        return [{"schedule.warmup": "none"}]
    depth = int(number.model.rsplit("-", 1)[1])
    until_error = {"schedule.warmup": "until_error", "schedule.warmup_error": 0.8} | _WARM
    if number.source.startswith("v2"):
        # v2's baselines of the original order are v1's networks: either warm-up is the paper's.
        preact = number.model.startswith("preact") or number.axes.get("order") == "full_preact"
        constant = {"schedule.warmup": "constant", "schedule.warmup_steps": 400} | _WARM
        return [constant] if preact else [constant, until_error]
    return [{"schedule.warmup": "none"} if depth < 110 else until_error]


def _plain(field: str, settings: Mapping[str, Any]) -> Any:
    value = settings[field]
    if field == "schedule.boundaries" and isinstance(value, Sequence):
        return as_fractions(value, settings.get("num_steps") or 1)
    if value is None:
        return _UNSET.get(field)
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return naming.as_text(value)
