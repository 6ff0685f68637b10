"""Batch normalisation whose statistics groups belong to the config, not to the hardware.

And its recalibration: statistics of given images in place of running averages.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

MOMENTUM = 0.9  # of the running statistics: running = 0.9 · running + 0.1 · new
EPSILON = 1e-5

COSTLY = "costly"
"""The `checkpoint_name` of what takes long to compute a second time: convolutions and sums."""


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over groups of examples.

    In training, consecutive runs of `group_size` examples are normalised each by its own mean
    and (biased) variance, as the papers' batches were on their several GPUs: v1's "256 images on
    8 GPUs" is `group_size=32` on any number of devices. The running statistics follow the mean
    over groups of the group means and of the unbiased group variances (Algorithm 2 there).
    Statistics are float32 also where activations are bfloat16. One pass over x gives both moments,
    about the mean of the group's first image, so that a mean far from zero costs no digits.

    Attributes:
      group_size: examples a group; None for the whole batch.
      scale_init: initialiser of the scale γ, float32 [channels].
    """

    group_size: int | None = None
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises `x`, [batch, height, width, channels], and keeps its type.

        Raises:
          ValueError: in training, if the batch is not a whole number of groups.
        """
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return _normalize(x, running_mean.value, running_var.value, scale, bias)

        grouped = _split(x, self.group_size)
        mean, var = checkpoint_name(_moments(grouped), COSTLY)
        if not self.is_initializing():
            count = grouped.size // (grouped.shape[0] * grouped.shape[-1])
            unbiased = var.mean(0) * (count / max(count - 1, 1))
            running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean.mean(0)
            running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * unbiased
        expand = lambda statistic: statistic[:, None, None, None, :]
        return _normalize(grouped, expand(mean), expand(var), scale, bias).reshape(x.shape)


def _moments(grouped: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each group, at least float32 [groups, channels].

    XLA fuses the two sums into one pass. E[d²] − E[d]² of the distances d to any value cancels
    where the mean is far from that value, so they are to the mean of the group's first image.
    """
    wide = grouped.astype(jnp.promote_types(grouped.dtype, jnp.float32))
    origin = jax.lax.stop_gradient(wide[:, 0].mean((1, 2)))
    distance = wide - origin[:, None, None, None]
    mean = distance.mean((1, 2, 3))
    var = jnp.maximum((distance * distance).mean((1, 2, 3)) - mean * mean, 0.0)
    return origin + mean, var


def _split(x: jax.Array, group_size: int | None) -> jax.Array:
    """[batch, …] -> [groups, group_size, …]."""
    group_size = group_size or x.shape[0]
    if x.shape[0] % group_size:
        raise ValueError(f"a batch of {x.shape[0]} is not a whole number of groups of {group_size}")
    return x.reshape(-1, group_size, *x.shape[1:])


def _normalize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    factor = scale * jax.lax.rsqrt(var + EPSILON)
    return (x * factor + (bias - mean * factor)).astype(x.dtype)


@partial(jax.jit, static_argnums=0)
def with_statistics_of(model: nn.Module, variables: Any, images: jax.Array) -> dict[str, Any]:
    """`variables` whose batch-norm statistics are those of one batch.

    An untrained network has none of its own: its running averages start at 0 and 1, with which
    a network in evaluation does not normalise at all.

    Args:
      model: a `ResNet`.
      variables: its "params" and "batch_stats".
      images: float [batch, height, width, channels], normalised.

    Raises:
      ValueError: the batch is not a whole number of groups.
    """
    # From averages of zero, one update leaves (1 − momentum) times the batch's statistics.
    zeros = jax.tree.map(jnp.zeros_like, variables.get("batch_stats", {}))
    _, updated = model.apply(
        {"params": variables["params"], "batch_stats": zeros},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    statistics = jax.tree.map(lambda leaf: leaf / (1 - MOMENTUM), updated.get("batch_stats", {}))
    return {"params": variables["params"], "batch_stats": statistics}


def recalibrate(model: nn.Module, variables: Any, batches: Iterable[jax.Array]) -> dict[str, Any]:
    """`variables` whose batch-norm statistics are means over all groups of the batches.

    They are the averages of which those that run along with training are estimates: of one set of
    weights, over every group alike (He et al.'s released ImageNet networks carry such). As in
    training each group is normalised by its own statistics, and variances are unbiased.

    Args:
      model: a `ResNet`.
      variables: its "params" and "batch_stats".
      batches: images, float [batch, height, width, channels], normalised.

    Raises:
      ValueError: a batch is not a whole number of groups.
    """
    parts = []
    for images in batches:
        statistics = with_statistics_of(model, variables, images)["batch_stats"]
        groups = len(images) // (model.architecture.bn_group_size or len(images))
        parts.append((groups, jax.device_get(statistics)))
    weights, statistics = zip(*parts, strict=True)
    mean = lambda *leaves: np.average(leaves, axis=0, weights=weights).astype(np.float32)
    means = jax.tree.map(mean, *statistics)
    return {"params": variables["params"], "batch_stats": means}
