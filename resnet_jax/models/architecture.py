"""The axes along which the networks of both ResNet papers differ, as plain data.

v1 is He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385); v2 is He et
al., "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027).

Imports no JAX: a config is checked against these axes before anything slow is loaded.
"""

import dataclasses
from typing import Any, NamedTuple

from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import tailored_relu

BLOCKS = {"basic": 2, "bottleneck": 3, "one_layer": 1}
"""Convolutions in a block's branch: 3×3,3×3 (v1 Fig. 5 left); 1×1,3×3,1×1 (v1 Fig. 5 right); one
3×3 (the one-layer skip of v2 Table 3)."""


class LayerOrder(NamedTuple):
    """Where a block normalises ("norm") and activates ("activation"); v2 Figure 4.

    `before` the branch, `between` its convolutions, on its end (`last`), and `after` the addition.
    """

    before: tuple[str, ...]
    between: tuple[str, ...]
    last: tuple[str, ...]
    after: tuple[str, ...]


_BOTH = ("norm", "activation")
ORDERS = {
    "original": LayerOrder((), _BOTH, ("norm",), ("activation",)),
    "bn_after_add": LayerOrder((), _BOTH, (), _BOTH),
    "relu_before_add": LayerOrder((), _BOTH, _BOTH, ()),
    "relu_only_preact": LayerOrder(("activation",), _BOTH, ("norm",), ()),
    "full_preact": LayerOrder(_BOTH, _BOTH, (), ()),
}

STEMS = {"cifar": 1, "imagenet": 4}
"""Stride of what comes before the first block: a 3×3 (v1 §4.2), or a 7×7/2 and a max-pool/2."""

EXPANSION = 4  # A bottleneck's outer layers are this much wider than its 3×3 (v1 Table 1).

CHOICES: dict[str, tuple] = {
    "stem": tuple(STEMS),
    "block": tuple(BLOCKS),
    "shortcut": (
        "none",  # the plain network
        "identity",
        "constant_scaling",  # v2 §3.1, `shortcut_scale` (0: plain, 1: residual), `branch_scale`
        "exclusive_gating",  # v2 §3.1, `gate_bias`
        "shortcut_only_gating",  # v2 §3.1, `gate_bias`
        "dropout",  # v2 §3.1, `dropout_rate`
    ),
    # How a shortcut meets a change of shape (v1 §3.3): A pads with zero channels, B projects where
    # shapes change, C projects in every block (v2's "1×1 convolutional shortcut").
    "option": ("A", "B", "C"),
    "option_a_padding": ("end", "both"),
    "order": tuple(ORDERS),
    "norm": ("batch", "none"),
    "activation": ("relu", "tanh", "sigmoid", "linear", "tailored_relu"),  # "linear": for theory
    "initialization": (
        "he_normal",  # v1 §3.4, by the fan-in
        "he_normal_fan_out",  # the release of v2
        *("delta_orthogonal", "looks_linear", "fixup", "skipinit"),
    ),
    # What stands for a convolution of a block in training; a plain one can be made of it.
    "parameterization": (
        "standard",
        "dirac",  # Zagoruyko & Komodakis 2017: a · identity + b · normalised kernel
        "repvgg",  # Ding et al. 2021: 3×3, 1×1 and identity side by side, each with its batch norm
    ),
    "downsample_in": ("1x1", "3x3"),
    "output_stride": (8, 16, 32),
}
"""The values of each axis that is not a number of any size."""

_RESIDUAL = CHOICES["shortcut"][1:]
_FOLDABLE = {
    **{"shortcut": ("none",), "norm": ("batch",), "block": ("basic", "one_layer")},
    **{"order": ("original",), "initialization": ("he_normal",)},
}
# A branch that starts at 0 has no gradient behind an activation, or where nothing goes around it.
_ENDS_LINEAR = tuple(name for name, order in ORDERS.items() if "activation" not in order.last)
_ENDS_NORMALISED = tuple(name for name in _ENDS_LINEAR if ORDERS[name].last)
REQUIREMENTS: dict[tuple[str, Any], dict[str, tuple]] = {
    ("initialization", "fixup"): {
        **{"norm": ("none",), "shortcut": _RESIDUAL, "block": ("basic", "bottleneck")},
        "order": _ENDS_LINEAR,
    },
    # Of two zero factors of one branch, neither ever has a gradient.
    ("initialization", "skipinit"): {"shortcut": _RESIDUAL, "zero_init_last": (False,)},
    ("zero_init_last", True): {
        **{"norm": ("batch",), "shortcut": _RESIDUAL, "order": _ENDS_NORMALISED}
    },
    ("initialization", "looks_linear"): {"shortcut": ("none",), "activation": ("relu",)},
    ("parameterization", "dirac"): _FOLDABLE,
    ("parameterization", "repvgg"): _FOLDABLE,
    ("activation", "tailored_relu"): {
        **{"shortcut": ("none",), "norm": ("none",), "initialization": ("delta_orthogonal",)}
    },
}
"""What an axis's value needs of other axes: (axis, value) -> {other axis: its allowed values}."""

USED_WITH: dict[str, dict[str, tuple]] = {
    "shortcut_scale": {"shortcut": ("constant_scaling",)},
    "branch_scale": {"shortcut": ("constant_scaling",)},
    "gate_bias": {"shortcut": ("exclusive_gating", "shortcut_only_gating")},
    "dropout_rate": {"shortcut": ("dropout",)},
    "option_a_padding": {"option": ("A",)},
    "downsample_in": {"block": ("bottleneck",)},
    "tat_eta": {"activation": ("tailored_relu",)},
}
"""Axes that say nothing without these values of others, where they keep their defaults."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network, less its number of classes and its number format.

    Attributes:
      stage_sizes: blocks in each stage.
      stem: a key of `STEMS`.
      width: channels of the first stage's 3×3 convolutions; each later stage doubles it.
      block, shortcut, option, order: see this module's tables.
      option_a_padding: where option A's zero channels stand: "end", after the shortcut's own, or
        "both", half of them on each side, as in some PyTorch releases. It numbers channels and
        changes nothing else: either network is the other with its channels renumbered.
      norm: "batch", or "none" (convolutions then have biases).
      bn_group_size: examples that share batch-norm statistics; None for the whole batch.
      activation: "relu", "tanh", "sigmoid", "linear" or "tailored_relu", a leaky ReLU whose slope
        follows from depth and `tat_eta`; see `resnet_jax.models.tailored_relu`.
      downsample_in: the bottleneck's convolution that strides: "1x1" (v1), "3x3" ("v1.5").
      output_stride: input pixels per output pixel; under 32, strides become dilation. ImageNet
        stems only.
      initialization: of the kernels, see `resnet_jax.models.initialization`. "fixup" and
        "skipinit" come with learnt scalars in each branch.
      parameterization: of the convolutions in blocks, see `CHOICES`.
      zero_init_last: start with the scale of each branch's last batch norm at 0, not 1.
      shortcut_scale, branch_scale: factors of "constant_scaling".
      gate_bias: initial bias of the gates.
      dropout_rate: fraction of the shortcut's values dropped by "dropout".
      tat_eta: η of "tailored_relu": how alike it makes two inputs that are not alike at all.

    Raises:
      InputError: a value is not allowed, or two of them do not go together.
    """

    stage_sizes: tuple[int, ...]
    stem: str = "cifar"
    width: int = 16
    block: str = "basic"
    shortcut: str = "identity"
    option: str = "A"
    option_a_padding: str = "end"
    order: str = "original"
    norm: str = "batch"
    bn_group_size: int | None = None
    activation: str = "relu"
    downsample_in: str = "1x1"
    output_stride: int = 32
    initialization: str = "he_normal"
    parameterization: str = "standard"
    zero_init_last: bool = False
    shortcut_scale: float = 1.0
    branch_scale: float = 1.0
    gate_bias: float = 0.0
    dropout_rate: float = 0.5
    tat_eta: float = tailored_relu.ETA

    def __post_init__(self):
        for axis, allowed in CHOICES.items():
            check_choice(axis, getattr(self, axis), allowed)
        self._check_numbers()
        if self.output_stride != 32 and self.stem != "imagenet":
            raise InputError(
                f"output_stride={self.output_stride}: only networks with the ImageNet stem dilate"
            )
        for (axis, value), needed in REQUIREMENTS.items():
            if getattr(self, axis) == value:
                self._check_requirements(f"{axis}={value!r}", needed)
        for axis, needed in USED_WITH.items():
            value = getattr(self, axis)
            if value != getattr(type(self), axis):
                self._check_requirements(f"{axis}={value!r}", needed)
        self._check_zero_branches()
        if self.activation == "tailored_relu":
            _ = self.negative_slope  # raises an error if there is none

    def _check_requirements(self, subject: str, needed: dict[str, tuple]) -> None:
        for axis, allowed in needed.items():
            if getattr(self, axis) not in allowed:
                wanted = " or ".join(map(repr, allowed))
                raise InputError(f"{subject}: needs {axis}={wanted}, not {getattr(self, axis)!r}")

    def _check_zero_branches(self) -> None:
        """Refuses branches that start at 0 where the other summand is 0, too, and stays so."""
        if self.zero_init_last and ORDERS[self.order].after and self.option == "A":
            raise InputError(
                "zero_init_last=True: needs option='B' or 'C', not 'A', whose added channels would "
                "have no gradient behind the addition's activation"
            )
        starts_at_zero = self.zero_init_last or self.initialization in ("fixup", "skipinit")
        if self.shortcut_scale == 0 and starts_at_zero:
            raise InputError(
                "shortcut_scale=0: nothing would be trained, because branches start at 0 with "
                f"initialization={self.initialization!r}, zero_init_last={self.zero_init_last}"
            )

    def _check_numbers(self) -> None:
        if not self.stage_sizes or any(size < 1 for size in self.stage_sizes):
            raise InputError(f"stage_sizes={self.stage_sizes}: each stage needs at least one block")
        if self.width < 1:
            raise InputError(f"width={self.width}: must be at least 1")
        if self.bn_group_size is not None and self.bn_group_size < 1:
            raise InputError(f"bn_group_size={self.bn_group_size}: must be at least 1, or None")
        if self.initialization == "looks_linear" and self.width % 2:
            raise InputError(f"width={self.width}: must be even for initialization='looks_linear'")
        if not 0 <= self.dropout_rate < 1:
            raise InputError(f"dropout_rate={self.dropout_rate}: must be in [0, 1)")

    @property
    def canonical(self) -> "Architecture":
        """Itself, less what it does not use: equal where networks are."""
        if self.shortcut != "none":
            return self
        return dataclasses.replace(self, option="A", option_a_padding="end")

    @property
    def num_blocks(self) -> int:
        """Residual blocks, or those of a plain network, in all stages together."""
        return sum(self.stage_sizes)

    @property
    def depth(self) -> int:
        """Weighted layers as the papers count them: convolutions of branches, stem, classifier."""
        return self.num_blocks * BLOCKS[self.block] + 2

    @property
    def negative_slope(self) -> float:
        """Of "tailored_relu": a plain network activates after each layer but the classifier."""
        return tailored_relu.negative_slope(self.depth - 1, self.tat_eta)

    @property
    def is_stochastic(self) -> bool:
        """Whether training draws random numbers in the blocks, each of which then needs its own."""
        return self.shortcut == "dropout"

    def stage_channels(self, stage: int) -> int:
        """Channels of a stage's output; stages count from 0."""
        return self.width * 2**stage * (EXPANSION if self.block == "bottleneck" else 1)
