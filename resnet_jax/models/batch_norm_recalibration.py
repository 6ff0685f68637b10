"""Batch norm's statistics over given images, in place of running averages."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models.batch_norm import MOMENTUM
from resnet_jax.models.resnet import ResNet


@partial(jax.jit, static_argnums=0)
def with_statistics_of(model: ResNet, variables: Any, images: jax.Array) -> dict[str, Any]:
    """`variables` whose batch-norm statistics are those of one batch.

    An untrained net has none of its own: its running averages start at 0 and 1, with which a net
    in evaluation does not normalise at all.

    Args:
      images: [batch, height, width, channels].
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


def mean_over_groups(model: ResNet, variables: Any, batches: Iterable[jax.Array]) -> dict[str, Any]:
    """`variables` whose batch-norm statistics are means over all groups of the batches.

    They are the averages of which those that run along with training are estimates: of one set of
    weights, over every group alike (He et al.'s released ImageNet nets carry such). As in
    training each group is normalised by its own statistics, and variances are unbiased.

    Args:
      batches: images [batch, height, width, channels]; each batch is a whole number of groups.
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
