"""Plain and residual networks: their layers, the residual block, and the network of blocks.

A block of both papers is y = after( shortcut(x) + branch( before(x) ) ); see `LayerOrder`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from resnet_jax.errors import InputError
from resnet_jax.models import scan_layers, tailored_relu
from resnet_jax.models.architecture import EXPANSION, ORDERS, STEMS, Architecture
from resnet_jax.models.batch_norm import COSTLY, BatchNorm
from resnet_jax.models.initialization import kernel_init
from resnet_jax.runtime import cpu

REMATS = {
    "none": jax.checkpoint_policies.everything_saveable,
    "activations": jax.checkpoint_policies.save_only_these_names(COSTLY),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}

"""What each block keeps for the gradient, by the value of `ResNet.remat`."""

_ACTIVATIONS: dict[str, Callable] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "linear": lambda x: x,
}


class Learnt(nn.Module):
    """A number, or one per channel, that training changes and, by default, weight decay does not.

    Attributes:
      start: its initial value.
      shape: () or (channels,).
    """

    start: float
    shape: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> jax.Array:
        """float32 `shape`."""
        return self.param("value", nn.initializers.constant(self.start), self.shape)


class ConvNormAct(nn.Module):
    """The layers that a stem and a block are made of, as an architecture has them.

    Attributes:
      architecture: see `Architecture`.
      dtype: of activations; parameters and batch-norm statistics are float32.
    """

    architecture: Architecture
    dtype: Any = jnp.float32

    def conv(
        self,
        x: jax.Array,
        channels: int,
        size: int,
        train: bool,
        *,
        stride: int = 1,
        dilation: int = 1,
        name: str,
        role: str = "outside",
        bias_init: Callable | None = None,
    ) -> jax.Array:
        """A size×size convolution with the symmetric padding that keeps shapes at stride 1.

        Its place in the network, `role`, decides its initial weights: see `kernel_init`. Fixup has
        a scalar bias before the convolutions of blocks, but none a channel.
        [batch, height, width, in] -> [batch, ⌈height/stride⌉, ⌈width/stride⌉, channels].
        """
        pad = dilation * (size // 2)
        fixup = self.architecture.initialization == "fixup"
        if fixup and role != "stem":
            x = x + self.learnt(f"{name}_bias", 0.0)
        y = nn.Conv(
            channels,
            (size, size),
            strides=stride,
            padding=[(pad, pad)] * 2,
            kernel_dilation=dilation,
            use_bias=bias_init is not None or (self.architecture.norm == "none" and not fixup),
            kernel_init=kernel_init(self.architecture, role),
            bias_init=bias_init or nn.initializers.zeros,
            dtype=self.dtype,
            promote_dtype=_to_dtype_but_bias,
            conv_general_dilated=cpu.conv_general_dilated if train else None,
            name=name,
        )(x)
        return checkpoint_name(y.astype(self.dtype), COSTLY)

    def norm(self, x: jax.Array, train: bool, *, name: str, zero_init: bool = False) -> jax.Array:
        """Batch norm of [batch, height, width, channels], where the architecture has it.

        Its scale starts at 1, or at 0. Fixup has a scalar bias in its place.
        """
        if self.architecture.initialization == "fixup":
            return (x + self.learnt(name.replace("norm", "bias"), 0.0)).astype(self.dtype)
        if self.architecture.norm == "none":
            return x
        scale_init = nn.initializers.zeros if zero_init else nn.initializers.ones
        return BatchNorm(self.architecture.bn_group_size, scale_init, name=name)(x, train)

    def activate(self, x: jax.Array) -> jax.Array:
        """The architecture's activation function, of each value."""
        if self.architecture.activation == "tailored_relu":
            slope = self.architecture.negative_slope
            # Leaky ReLU, with the mean of its slopes at 0: where pixels are always 0, the larger
            # one makes the gradient grow from layer to layer.
            size = nn.relu(x) + nn.relu(-x)
            leaky = (1 + slope) / 2 * x + (1 - slope) / 2 * size
            return tailored_relu.output_scale(slope) * leaky
        return _ACTIVATIONS[self.architecture.activation](x)

    def learnt(self, name: str, start: float, shape: tuple[int, ...] = ()) -> jax.Array:
        """A learnt number, float32, as what it makes of activations is until that is cast.

        Its gradient is a sum over all positions: in bfloat16 it would not grow past 256 equal ones.
        """
        return Learnt(start, shape, name=name)()

    def sequence(
        self, steps: Sequence[str], x: jax.Array, train: bool, *, name: str, zero_init: bool = False
    ) -> jax.Array:
        """Applies "norm" and "activation" in the order given."""
        for step in steps:
            if step == "norm":
                x = self.norm(x, train, name=name, zero_init=zero_init)
            else:
                x = self.activate(x)
        return x


class ResidualBlock(ConvNormAct):
    """One block (v2's "residual unit"); without a shortcut, two or three plain layers.

    Attributes:
      channels: of the output.
      stride: of the branch's striding convolution and of the shortcut.
      dilations: of the 3×3 convolutions up to the striding one, and after it.
      preactivated: the input has been through `before` already: the network's first block,
        whose activation comes right after the stem, ahead of the split (v2 §4.1, appendix).
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
        total = self.residual_branch(activated, train)
        if self.architecture.shortcut != "none":
            shortcut = self.project_shortcut(x, activated, train)
            total = _SHORTCUTS[self.architecture.shortcut](self, x, shortcut, total, train)
        y = self.sequence(order.after, total, train, name="after_norm")
        return cpu.fusion_barrier(y)

    def residual_branch(self, x: jax.Array, train: bool) -> jax.Array:
        """What the shortcut goes around: [batch, …, in] -> [batch, …, channels]."""
        order = ORDERS[self.architecture.order]
        initialization = self.architecture.initialization
        convolutions = self._convolutions()
        for number, (channels, size, stride, dilation) in enumerate(convolutions, start=1):
            last = number == len(convolutions)
            y = self.conv(
                x,
                channels,
                size,
                train,
                stride=stride,
                dilation=dilation,
                name=f"conv{number}",
                role="branch_end" if last else "branch",
            )
            if self.architecture.parameterization == "dirac":
                y = self._dirac(x, y, number, stride)
            if last and initialization == "fixup":
                y = (y * self.learnt("multiplier", 1.0)).astype(self.dtype)
            zero_init = last and self.architecture.zero_init_last
            steps = order.last if last else order.between
            if self.architecture.parameterization == "repvgg":
                y = self.norm(y, train, name=f"norm{number}", zero_init=zero_init)
                y, steps = y + self._beside(x, channels, number, stride, train), steps[1:]
            x = self.sequence(steps, y, train, name=f"norm{number}", zero_init=zero_init)
        if initialization == "skipinit":
            x = (x * self.learnt("multiplier", 0.0)).astype(self.dtype)
        return x

    def _dirac(self, x: jax.Array, y: jax.Array, number: int, stride: int) -> jax.Array:
        """What the kernel a · δ + b · W / ‖W‖ makes of x: a · x + b · y / ‖W‖.

        y is the convolution of x whose kernel is W; a, b and the norm are one number an output
        channel (Zagoruyko & Komodakis 2017, §3). δ is the identity as option A has it.
        """
        channels = y.shape[-1]
        kernel = self.variables["params"][f"conv{number}"]["kernel"]
        norm = jnp.linalg.norm(kernel.reshape(-1, channels), axis=0)
        delta = self.learnt(f"dirac{number}_delta", 1.0, (channels,))
        weight = self.learnt(f"dirac{number}_weight", 0.1, (channels,))
        total = delta * pad_shortcut(x, stride, channels) + weight / norm * y
        return total.astype(self.dtype)

    def _beside(
        self, x: jax.Array, channels: int, number: int, stride: int, train: bool
    ) -> jax.Array:
        """RepVGG's 1×1 convolution and, where shapes allow it, identity, both normalised."""
        name = f"conv{number}_1x1"
        y = self.conv(x, channels, 1, train, stride=stride, name=name, role="branch")
        y = self.norm(y, train, name=f"norm{number}_1x1")
        if stride == 1 and x.shape[-1] == channels:
            y += self.norm(x, train, name=f"norm{number}_identity")
        return y

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

    def project_shortcut(self, x: jax.Array, activated: jax.Array, train: bool) -> jax.Array:
        """The shortcut's input in the shape of the branch's output: options A, B, C of v1 §3.3.

        [batch, height, width, channels] -> [batch, height / stride, width / stride, `channels`].
        A projection takes the activated input (v2's pre-activation blocks) and is normalised
        where the branch's end is.
        """
        option = self.architecture.option
        same_shape = self.stride == 1 and x.shape[-1] == self.channels
        if option == "C" or (option == "B" and not same_shape):
            y = self.conv(activated, self.channels, 1, train, stride=self.stride, name="projection")
            if self.architecture.norm == "none":
                return y
            steps = [s for s in ORDERS[self.architecture.order].last if s == "norm"]
            return self.sequence(steps, y, train, name="projection_norm")
        return pad_shortcut(x, self.stride, self.channels, self.architecture.option_a_padding)

    def gate(self, x: jax.Array, train: bool) -> jax.Array:
        """g(x) = σ(W x + b), a 1×1 convolution (v2 §3.1), in the shape of the branch's output."""
        bias_init = nn.initializers.constant(self.architecture.gate_bias)
        return nn.sigmoid(
            self.conv(
                x, self.channels, 1, train, stride=self.stride, name="gate", bias_init=bias_init
            )
        )


def _to_dtype_but_bias(*arrays: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list:
    """Flax's `promote_dtype` for a convolution whose bias stays as it is; see `learnt`."""
    *others, bias = arrays
    return [*promote_dtype(*others, dtype=dtype, inexact=inexact), bias]


def pad_shortcut(x: jax.Array, stride: int, channels: int, padding: str = "end") -> jax.Array:
    """Option A of v1 §3.3: every `stride`-th pixel, and zeros for the missing channels.

    Args:
      x: [batch, height, width, in].
      stride: of the block.
      channels: of the result, at least as many as `x` has.
      padding: "end", zeros after the channels of `x`, or "both", half of them on each side.
    """
    y = x[:, ::stride, ::stride]
    zeros = channels - x.shape[-1]
    before = zeros // 2 if padding == "both" else 0
    return jnp.pad(y, ((0, 0), (0, 0), (0, 0), (before, zeros - before)))


def _gated(block, x, shortcut, branch, train):
    gate = block.gate(x, train)
    return (1 - gate) * shortcut + gate * branch


# (block, its input, that in the branch's shape, the branch's output, train) -> the sum before
# `after`; v2 §3.1. A plain network, "none", has no such sum.
_SHORTCUTS: dict[str, Callable] = {
    "identity": lambda block, x, shortcut, branch, train: shortcut + branch,
    "constant_scaling": lambda block, x, shortcut, branch, train: (
        block.architecture.shortcut_scale * shortcut + block.architecture.branch_scale * branch
    ),
    "exclusive_gating": _gated,
    "shortcut_only_gating": lambda block, x, shortcut, branch, train: (
        (1 - block.gate(x, train)) * shortcut + branch
    ),
    "dropout": lambda block, x, shortcut, branch, train: (
        nn.Dropout(block.architecture.dropout_rate, deterministic=not train)(shortcut) + branch
    ),
}


class ResNet(ConvNormAct):
    """A plain or residual network for images (v1 Table 1 and §4.2, v2 §4).

    Attributes:
      architecture: see `Architecture`.
      num_classes: of the classifier.
      dtype: of activations; parameters and batch-norm statistics are float32.
      remat: a key of `REMATS`: what each block computes a second time for the gradient, instead of
        keeping it (Chen et al. 2016). "activations": what follows from the convolutions' outputs
        and from batch norm's statistics; "blocks": all its inside, which is a third more work.
      scan_blocks: the blocks of a stage that are alike, all but its first, are the steps of one
        `lax.scan`, compiled once, whatever their number. Their parameters and their initial values
        are the same. An interceptor sees a scanned block once, without its name, and no
        intermediates are captured there. Networks whose shortcuts drop out scan no blocks: each
        block has its own random numbers.
    """

    num_classes: int = 10
    remat: str = "none"
    scan_blocks: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, features: bool = False
    ) -> jax.Array | tuple[jax.Array, ...]:
        """Logits, or what each stage puts out.

        Args:
          images: float [batch, height, width, channels], normalised.
          train: use the batch's statistics and update the running ones (make the collection
            "batch_stats" mutable); dropout shortcuts need the random stream "dropout".
          features: return the outputs of the stages, for a detector or segmenter.

        Returns:
          Logits, float32 [batch, num_classes]; or with `features` a tuple with the output of
          each stage, [batch, height / s, width / s, channels], the last one after the
          network's final activation.

        Raises:
          InputError: the images are of whole numbers, as a data set has them.
          ValueError: in training, if the batch is not a whole number of batch-norm groups.
        """
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"images of {images.dtype}: a network takes them normalised, of floating point; "
                "resnet_jax.data.device_dataset.normalize makes such"
            )
        x = self._stem(images.astype(self.dtype), train)
        block_class = ResidualBlock
        if train and self.remat != "none":
            policy = REMATS[self.remat]
            block_class = nn.remat(ResidualBlock, static_argnums=2, policy=policy)
        outputs = []
        for stage, blocks in enumerate(self._blocks(), start=1):
            loop = f"stage{stage}_units"
            scanned = loop in self.scanned_blocks and not self.is_initializing()
            for number, block in enumerate(blocks[:1] if scanned else blocks, start=1):
                name = f"stage{stage}_unit{number}"
                x = block_class(self.architecture, self.dtype, **block, name=name)(x, train)
            if scanned:
                x = self._scan(loop, blocks[-1], x, train)
            outputs.append(x)
        # A pre-activation network activates once more after its last addition (v2 §4.1, appendix).
        x = self.sequence(ORDERS[self.architecture.order].before, x, train, name="final_norm")
        if features:
            return (*outputs[:-1], x)
        pooled = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        if self.architecture.initialization == "fixup":
            pooled += Learnt(0.0, name="classifier_bias")()
        weights = kernel_init(self.architecture, "classifier")
        return nn.Dense(self.num_classes, kernel_init=weights, name="classifier")(pooled)

    @property
    def scanned_blocks(self) -> scan_layers.ScannedBlocks:
        """What `scan_blocks` makes loops of: the blocks of a stage but its first, if several.

        `apply` takes variables that `scan_layers.pack` has packed so, and also others, which it
        stacks itself.
        """
        if not self.scan_blocks or self.architecture.is_stochastic:
            return {}
        sizes = enumerate(self.architecture.stage_sizes, start=1)
        return {
            f"stage{stage}_units": tuple(f"stage{stage}_unit{n}" for n in range(2, size + 1))
            for stage, size in sizes
            if size > 2
        }

    def _scan(self, loop: str, block: dict[str, Any], x: jax.Array, train: bool) -> jax.Array:
        """The blocks of a loop, one after the other, all with the same arguments."""
        alike = ResidualBlock(self.architecture, self.dtype, **block, parent=None)
        names = self.scanned_blocks[loop]
        stacked = {
            collection: of[loop] if loop in of else scan_layers.stack([of[name] for name in names])
            for collection, of in self.variables.items()
            if loop in of or names[0] in of
        }
        mutable = ["batch_stats"] if self.is_mutable_collection("batch_stats") else []

        def step(x, variables):
            return alike.apply(variables, x, train, mutable=mutable)

        if train and self.remat != "none":
            step = jax.checkpoint(step, policy=REMATS[self.remat])
        x, updates = jax.lax.scan(step, x, stacked)
        for collection, of in updates.items():
            entries = {loop: of}
            if loop not in self.variables[collection]:
                entries = scan_layers.unpack(entries, {loop: names})
            for name, values in entries.items():
                self.put_variable(collection, name, values)
        return x

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        imagenet = self.architecture.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        width = self.architecture.width
        x = self.conv(x, width, size, train, stride=stride, name="stem", role="stem")
        x = self.activate(self.norm(x, train, name="stem_norm"))
        return self.pool(x) if imagenet else x

    def pool(self, x: jax.Array) -> jax.Array:
        """The ImageNet stem's 3×3 max-pool/2 (v1 Table 1)."""
        return cpu.max_pool(x)

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the blocks, and so of their parameters, from the first to the last.

        They say "unit", v2's word, as all checkpoints do.
        """
        sizes = enumerate(self.architecture.stage_sizes, start=1)
        return tuple(f"stage{s}_unit{n}" for s, size in sizes for n in range(1, size + 1))

    def _blocks(self) -> list[list[dict[str, Any]]]:
        """The arguments of each block, stage by stage."""
        stages = []
        total_stride, dilation = STEMS[self.architecture.stem], 1
        for stage, size in enumerate(self.architecture.stage_sizes):
            channels = self.architecture.stage_channels(stage)
            stride = 1 if stage == 0 else 2
            dilations = (dilation, dilation)
            if total_stride * stride > self.architecture.output_stride:
                dilations = (dilation, dilation * stride)
                stride, dilation = 1, dilation * stride
            total_stride *= stride
            first: dict[str, Any] = {
                "channels": channels,
                "stride": stride,
                "dilations": dilations,
                "preactivated": stage == 0,
            }
            rest: dict[str, Any] = {"channels": channels, "dilations": (dilation, dilation)}
            stages.append([first, *[rest] * (size - 1)])
        return stages
