"""A whole network: stem, stages of units, classifier."""

import functools
import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models import stacking
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
      scan_units: units that are alike are the steps of one `lax.scan`, compiled once, whatever
        their number. It changes nothing in initialisation, in the names of parameters, and in nets
        whose shortcuts drop out, since each unit has its own random numbers. Interceptors and
        captured intermediates do not see inside.
    """

    num_classes: int = 10
    remat: bool = False
    scan_units: bool = False

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
        outputs = []
        names = iter(self.unit_names)
        for units in self._units():
            for unit, alike in itertools.groupby(units):
                x = self._apply_units(unit, [next(names) for _ in alike], x, train)
            outputs.append(x)
        # A pre-activation net activates once more after its last addition (v2 §4.1, appendix).
        x = self.sequence(ORDERS[self.architecture.order].before, x, train, name="final_norm")
        if features:
            return (*outputs[:-1], x)
        pooled = x.mean((1, 2), dtype=jnp.float32)
        weights = kernel_init(self.architecture, "classifier")
        return nn.Dense(self.num_classes, kernel_init=weights, name="classifier")(pooled)

    def _apply_units(self, unit: dict, names: list[str], x, train) -> jax.Array:
        """Units of these names, one after the other, all with the same arguments."""
        remat = self.remat and train
        scan = self.scan_units and self.architecture.shortcut != "dropout" and len(names) > 1
        if scan and not self.is_initializing():
            return self._scan(unit, names, x, train, remat)
        unit_class = nn.remat(ResidualUnit, static_argnums=2) if remat else ResidualUnit
        for name in names:
            x = unit_class(self.architecture, self.dtype, **unit, name=name)(x, train)
        return x

    def _scan(self, unit, names, x, train, remat) -> jax.Array:
        """The same in a loop over the units' variables, which are stacked for it."""
        alike = ResidualUnit(self.architecture, self.dtype, **unit, parent=None)
        mutable = ["batch_stats"] if self.is_mutable_collection("batch_stats") else []
        stacked = {
            collection: stacking.stack([of[name] for name in names])
            for collection, of in self.variables.items()
            if names[0] in of
        }

        def step(x, variables):
            return alike.apply(variables, x, train, mutable=mutable)

        x, updated = jax.lax.scan(jax.checkpoint(step) if remat else step, x, stacked)
        for collection, of in updated.items():
            for name, values in zip(names, stacking.unstack(of, len(names)), strict=True):
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
