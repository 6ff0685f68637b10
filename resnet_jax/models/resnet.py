"""A whole network: stem, stages of units, classifier."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models.architecture import ORDERS, STEMS
from resnet_jax.models.initialization import kernel_init
from resnet_jax.models.residual import Layers, ResidualUnit


class ResNet(Layers):
    """A plain or residual network for images (v1 Table 1 and §4.2, v2 §4).

    Attributes:
      architecture: see `Architecture`.
      num_classes: of the classifier.
      dtype: of activations; parameters and batch-norm statistics are float32.
      remat: in training keep only what each unit puts out, and compute its inside a second time
        for the gradient (Chen et al. 2016): less memory, a third more work.
    """

    num_classes: int = 10
    remat: bool = False

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
        remat = self.remat and train
        unit_class = nn.remat(ResidualUnit, static_argnums=2) if remat else ResidualUnit
        outputs = []
        for stage, units in enumerate(self._units()):
            for number, unit in enumerate(units, start=1):
                x = unit_class(
                    self.architecture,
                    self.dtype,
                    **unit,
                    name=f"stage{stage + 1}_unit{number}",
                )(x, train)
            outputs.append(x)
        # A pre-activation net activates once more after its last addition (v2 §4.1, appendix).
        x = self.sequence(ORDERS[self.architecture.order].before, x, train, name="final_norm")
        if features:
            return (*outputs[:-1], x)
        pooled = x.mean((1, 2), dtype=jnp.float32)
        weights = kernel_init(self.architecture, "classifier")
        return nn.Dense(self.num_classes, kernel_init=weights, name="classifier")(pooled)

    def _stem(self, x, train) -> jax.Array:
        imagenet = self.architecture.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        x = self.conv(x, self.architecture.width, size, train, stride=stride, name="stem")
        x = self.activate(self.norm(x, train, name="stem_norm"))
        return self.pool(x) if imagenet else x

    def pool(self, x: jax.Array) -> jax.Array:
        """The ImageNet stem's 3×3 max-pool/2 (v1 Table 1)."""
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1)] * 2)

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
