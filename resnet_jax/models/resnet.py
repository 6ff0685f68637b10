"""A whole network: stem, stages of units, classifier."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models import scan_layers
from resnet_jax.models.architecture import ORDERS, STEMS
from resnet_jax.models.batch_norm import COSTLY
from resnet_jax.models.initialization import kernel_init
from resnet_jax.models.residual import Layers, ResidualUnit

REMATS = {
    "none": jax.checkpoint_policies.everything_saveable,
    "activations": jax.checkpoint_policies.save_only_these_names(COSTLY),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


class ResNet(Layers):
    """A plain or residual network for images (v1 Table 1 and §4.2, v2 §4).

    Attributes:
      architecture: see `Architecture`.
      num_classes: of the classifier.
      dtype: of activations; parameters and batch-norm statistics are float32.
      remat: one of `REMATS`: what each unit computes a second time for the gradient, instead of
        keeping it (Chen et al. 2016). "activations": what follows from the convolutions' outputs
        and from batch norm's statistics; "blocks": all its inside, which is a third more work.
      scan_blocks: the units of a stage that are alike, all but its first, are the steps of one
        `lax.scan`, compiled once, whatever their number. Their parameters and their first values
        are the same. An interceptor sees a loop's unit once, without its name, and no
        intermediates are captured there. Nets whose shortcuts drop out have no such loops: each
        unit has its own random numbers.
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
          each stage, [batch, height / s, width / s, channels], the last one after the net's
          final activation.
        """
        x = self._stem(images.astype(self.dtype), train)
        unit_class = ResidualUnit
        if train and self.remat != "none":
            policy = REMATS[self.remat]
            unit_class = nn.remat(ResidualUnit, static_argnums=2, policy=policy)
        outputs = []
        for stage, units in enumerate(self._units(), start=1):
            loop = f"stage{stage}_units"
            looped = loop in self.loops and not self.is_initializing()
            for number, unit in enumerate(units[:1] if looped else units, start=1):
                name = f"stage{stage}_unit{number}"
                x = unit_class(self.architecture, self.dtype, **unit, name=name)(x, train)
            if looped:
                x = self._scan(loop, units[-1], x, train)
            outputs.append(x)
        # A pre-activation net activates once more after its last addition (v2 §4.1, appendix).
        x = self.sequence(ORDERS[self.architecture.order].before, x, train, name="final_norm")
        if features:
            return (*outputs[:-1], x)
        pooled = x.mean((1, 2), dtype=jnp.float32)
        weights = kernel_init(self.architecture, "classifier")
        return nn.Dense(self.num_classes, kernel_init=weights, name="classifier")(pooled)

    @property
    def loops(self) -> scan_layers.Loops:
        """What `scan_blocks` makes loops of: the units of a stage but the first, if several.

        `apply` takes variables that `stacking.pack` has packed so, and also others, which it
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

    def _scan(self, loop: str, unit: dict, x, train) -> jax.Array:
        """The units of a loop, one after the other, all with the same arguments."""
        alike = ResidualUnit(self.architecture, self.dtype, **unit, parent=None)
        names = self.loops[loop]
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

    def _stem(self, x, train) -> jax.Array:
        imagenet = self.architecture.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        x = self.conv(x, self.architecture.width, size, train, stride=stride, name="stem")
        x = self.activate(self.norm(x, train, name="stem_norm"))
        return self.pool(x) if imagenet else x

    def pool(self, x: jax.Array) -> jax.Array:
        """The ImageNet stem's 3×3 max-pool/2 (v1 Table 1).

        As comparisons of nine shifted images: the gradient that XLA has of its own pooling takes
        ten times as long on a CPU and depends on the order of arrival on a GPU.
        """
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        shifted = [
            padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)
        ]
        return functools.reduce(lambda best, other: jnp.where(other > best, other, best), shifted)

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names of the units, and so of their parameters, from the first to the last."""
        sizes = enumerate(self.architecture.stage_sizes, start=1)
        return tuple(f"stage{s}_unit{n}" for s, size in sizes for n in range(1, size + 1))

    def _units(self) -> list[list[dict]]:
        """The arguments of each unit, stage by stage."""
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
            first = {
                "channels": channels,
                "stride": stride,
                "dilations": dilations,
                "preactivated": stage == 0,
            }
            rest = {"channels": channels, "dilations": (dilation, dilation)}
            stages.append([first, *[rest] * (size - 1)])
        return stages
