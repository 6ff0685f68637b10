"""The residual unit of both papers: y = after( shortcut(x) + branch( before(x) ) )."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from resnet_jax.models.architecture import EXPANSION, ORDERS, Architecture
from resnet_jax.models.batch_norm import COSTLY, BatchNorm
from resnet_jax.models.initialization import kernel_init
from resnet_jax.runtime.cpu import conv_general_dilated

_ACTIVATIONS: dict[str, Callable] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "linear": lambda x: x,
}


class Layers(nn.Module):
    """The layers that a stem and a unit are made of, as an architecture has them."""

    architecture: Architecture
    dtype: jnp.dtype = jnp.float32

    def conv(
        self,
        x,
        channels: int,
        size: int,
        train: bool,
        *,
        stride=1,
        dilation=1,
        name: str,
        role: str = "outside",
        bias_init=None,
    ) -> jax.Array:
        """A size×size convolution with the symmetric padding that keeps shapes at stride 1.

        Its place in the net, `role`, decides its initial weights: see `kernel_init`.
        """
        pad = dilation * (size // 2)
        y = nn.Conv(
            channels,
            (size, size),
            strides=stride,
            padding=[(pad, pad)] * 2,
            kernel_dilation=dilation,
            use_bias=self.architecture.norm == "none" or bias_init is not None,
            kernel_init=kernel_init(self.architecture, role),
            bias_init=bias_init or nn.initializers.zeros,
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated if train else None,
            name=name,
        )(x)
        return checkpoint_name(y, COSTLY)

    def norm(self, x, train: bool, *, name: str, zero_init: bool = False) -> jax.Array:
        if self.architecture.norm == "none":
            return x
        scale_init = nn.initializers.zeros if zero_init else nn.initializers.ones
        return BatchNorm(self.architecture.bn_group_size, scale_init, name=name)(x, train)

    def activate(self, x) -> jax.Array:
        return _ACTIVATIONS[self.architecture.activation](x)

    def sequence(
        self, steps: Sequence[str], x, train: bool, *, name: str, zero_init: bool = False
    ) -> jax.Array:
        """Applies "norm" and "activation" in the order given."""
        for step in steps:
            if step == "norm":
                x = self.norm(x, train, name=name, zero_init=zero_init)
            else:
                x = self.activate(x)
        return x


class ResidualUnit(Layers):
    """One unit; without a shortcut, two or three plain layers.

    Attributes:
      channels: of the output.
      stride: of the branch's striding convolution and of the shortcut.
      dilations: of the 3×3 convolutions up to the striding one, and after it.
      preactivated: the input has been through `before` already: the net's first unit, whose
        activation comes right after the stem, ahead of the split (v2 §4.1, appendix).
    """

    channels: int = 16
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    preactivated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[batch, height, width, in] -> [batch, ⌈height/stride⌉, ⌈width/stride⌉, channels]."""
        order = ORDERS[self.architecture.order]
        before = () if self.preactivated else order.before
        activated = self.sequence(before, x, train, name="before_norm")
        branch = self.branch(activated, train)
        total = _SHORTCUTS[self.architecture.shortcut](self, x, activated, branch, train)
        y = self.sequence(order.after, total, train, name="after_norm")
        # Without this, XLA:CPU's fusion recomputes the chain of additions unit after unit: on
        # JAX 0.12 a step of a 56-layer net took 2.2 times as long.
        return jax.lax.optimization_barrier(y)

    def branch(self, x, train) -> jax.Array:
        """What the shortcut goes around: [batch, …, in] -> [batch, …, channels]."""
        order = ORDERS[self.architecture.order]
        convolutions = self._convolutions()
        for number, (channels, size, stride, dilation) in enumerate(convolutions, start=1):
            last = number == len(convolutions)
            x = self.conv(
                x,
                channels,
                size,
                train,
                stride=stride,
                dilation=dilation,
                name=f"conv{number}",
                role="branch_end" if last else "branch",
            )
            x = self.sequence(
                order.last if last else order.between,
                x,
                train,
                name=f"norm{number}",
                zero_init=last and self.architecture.zero_init_last,
            )
        return x

    def _convolutions(self) -> list[tuple[int, int, int, int]]:
        """(channels, size, stride, dilation) of each convolution of the branch."""
        c, (until, after), stride = self.channels, self.dilations, self.stride
        if self.architecture.block == "one_layer":
            return [(c, 3, stride, until)]
        if self.architecture.block == "basic":
            return [(c, 3, stride, until), (c, 3, 1, after)]
        narrow = c // EXPANSION
        if self.architecture.downsample_in == "1x1":
            return [(narrow, 1, stride, 1), (narrow, 3, 1, after), (c, 1, 1, 1)]
        return [(narrow, 1, 1, 1), (narrow, 3, stride, until), (c, 1, 1, 1)]

    def matched(self, x, activated, train) -> jax.Array:
        """The shortcut's input in the shape of the branch's output: options A, B, C of v1 §3.3.

        A projection takes the activated input (v2's pre-activation units) and is normalised
        where the branch's end is.
        """
        option = self.architecture.option
        same_shape = self.stride == 1 and x.shape[-1] == self.channels
        if option == "C" or (option == "B" and not same_shape):
            y = self.conv(activated, self.channels, 1, train, stride=self.stride, name="projection")
            steps = [s for s in ORDERS[self.architecture.order].last if s == "norm"]
            return self.sequence(steps, y, train, name="projection_norm")
        return pad_shortcut(x, self.stride, self.channels, self.architecture.option_a_padding)

    def gate(self, x, train) -> jax.Array:
        """g(x) = σ(W x + b), a 1×1 convolution (v2 §3.1)."""
        bias_init = nn.initializers.constant(self.architecture.gate_bias)
        return nn.sigmoid(
            self.conv(
                x, self.channels, 1, train, stride=self.stride, name="gate", bias_init=bias_init
            )
        )


def pad_shortcut(x: jax.Array, stride: int, channels: int, padding: str = "end") -> jax.Array:
    """Option A of v1 §3.3: every `stride`-th pixel, and zeros for the channels that lack."""
    y = x[:, ::stride, ::stride]
    zeros = channels - x.shape[-1]
    before = zeros // 2 if padding == "both" else 0
    return jnp.pad(y, ((0, 0), (0, 0), (0, 0), (before, zeros - before)))


def _none(unit, x, activated, branch, train):
    return branch


def _identity(unit, x, activated, branch, train):
    return unit.matched(x, activated, train) + branch


def _constant_scaling(unit, x, activated, branch, train):
    scale = unit.architecture
    shortcut = unit.matched(x, activated, train)
    return scale.shortcut_scale * shortcut + scale.branch_scale * branch


def _exclusive_gating(unit, x, activated, branch, train):
    gate = unit.gate(x, train)
    return (1 - gate) * unit.matched(x, activated, train) + gate * branch


def _shortcut_only_gating(unit, x, activated, branch, train):
    return (1 - unit.gate(x, train)) * unit.matched(x, activated, train) + branch


def _dropout(unit, x, activated, branch, train):
    dropout = nn.Dropout(unit.architecture.dropout_rate, deterministic=not train)
    return dropout(unit.matched(x, activated, train)) + branch


_SHORTCUTS: dict[str, Callable] = {
    "none": _none,
    "identity": _identity,
    "constant_scaling": _constant_scaling,
    "exclusive_gating": _exclusive_gating,
    "shortcut_only_gating": _shortcut_only_gating,
    "dropout": _dropout,
}
