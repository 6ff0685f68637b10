"""Batch normalisation whose statistics groups belong to the config, not to the hardware."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
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
    Statistics are float32 whatever the compute type.

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
        # One pass over x for both moments: XLA fuses the two sums.
        x32 = grouped.astype(jnp.float32)
        mean = x32.mean((1, 2, 3))
        var = jnp.maximum((x32 * x32).mean((1, 2, 3)) - mean * mean, 0.0)
        mean, var = checkpoint_name((mean, var), COSTLY)
        if not self.is_initializing():
            count = grouped.size // (grouped.shape[0] * grouped.shape[-1])
            unbiased = var.mean(0) * (count / max(count - 1, 1))
            running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean.mean(0)
            running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * unbiased
        expand = lambda statistic: statistic[:, None, None, None, :]
        return _normalize(grouped, expand(mean), expand(var), scale, bias).reshape(x.shape)


def _split(x: jax.Array, group_size: int | None) -> jax.Array:
    """[batch, …] -> [groups, group_size, …]."""
    group_size = group_size or x.shape[0]
    if x.shape[0] % group_size:
        raise ValueError(f"a batch of {x.shape[0]} is not a whole number of groups of {group_size}")
    return x.reshape(-1, group_size, *x.shape[1:])


def _normalize(x, mean, var, scale, bias) -> jax.Array:
    factor = scale * jax.lax.rsqrt(var + EPSILON)
    return (x * factor + (bias - mean * factor)).astype(x.dtype)
