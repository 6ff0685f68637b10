"""The error over exactly a whole split, and the logits of each of its examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from resnet_jax.data.splits import Split
from resnet_jax.runtime import parallel
from resnet_jax.training.step import cross_entropy, wrong

PredictLogits = Callable[[dict[str, Any], Split], tuple[np.ndarray, np.ndarray]]
Evaluate = Callable[[dict[str, Any], Split], dict[str, float]]


def make_evaluate(model: nn.Module, mesh: Mesh, batch_size: int) -> Evaluate:
    """Makes `evaluate(variables, split) -> {"loss", "error"}`, means over every example.

    The network runs with its running statistics. Errors are fractions; the loss is the
    cross-entropy. An example whose loss is not finite counts as an error.
    """
    replicated, sharded = parallel.replicated(mesh), parallel.sharded(mesh)

    def evaluate_batch(sums, variables, data, inputs, mask):
        images, labels = data.plain(inputs)
        logits: Any = model.apply(variables, images, train=False)
        losses = cross_entropy(logits, labels)
        errors = wrong(logits, labels).astype(jnp.float32)
        return sums + jnp.stack([losses, errors]).sum(1, where=mask)

    evaluate_batch = jax.jit(
        evaluate_batch,
        in_shardings=(replicated, replicated, replicated, sharded, sharded),
        out_shardings=replicated,
    )

    def evaluate(variables, data):
        """Goes through the whole split, a batch at a time."""
        # Counts are exact to 2²⁴. Placed as the sums are that follow, or it would compile twice.
        sums = parallel.device_put_global(np.zeros(2, np.float32), replicated)
        for batch in data.evaluation_inputs(batch_size):
            inputs, mask = parallel.device_put_global(batch, sharded)
            before = sums
            sums = parallel.block_on_cpu(
                evaluate_batch(before, variables, data.on_devices, inputs, mask)
            )
            jax.block_until_ready(before)  # At most two batches wait for the devices.
        losses, errors = jax.device_get(sums)
        return {"loss": float(losses) / len(data), "error": float(errors) / len(data)}

    return evaluate


def make_predict_logits(model: nn.Module, mesh: Mesh, batch_size: int) -> PredictLogits:
    """Makes `predict_logits(variables, split)`: the split's logits and labels, in its order.

    They are float32 [examples, classes] and int32 [examples]. The network runs with its running
    statistics.
    """
    replicated, sharded = parallel.replicated(mesh), parallel.sharded(mesh)

    def score_batch(variables, data, inputs):
        images, labels = data.plain(inputs)
        return model.apply(variables, images, train=False), labels

    score_batch = jax.jit(
        score_batch, in_shardings=(replicated, replicated, sharded), out_shardings=replicated
    )

    def predict_logits(variables, data):
        parts = []
        for inputs, mask in data.evaluation_inputs(batch_size):
            placed = parallel.device_put_global(inputs, sharded)
            scored = parallel.block_on_cpu(score_batch(variables, data.on_devices, placed))
            parts.append([np.asarray(array)[mask] for array in scored])
        logits, labels = map(np.concatenate, zip(*parts, strict=True))
        return logits, labels

    return predict_logits
