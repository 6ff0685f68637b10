"""One update of the network's weights, of which parts may be frozen.

A frozen stem or stage is a fixed function: its weights get no update and no decay, its batch norms
normalise by their running statistics, which stay, and its shortcuts drop nothing. The part
"batch_norm" is all batch norms of the network: scales, biases and statistics.
"""

import contextlib
import math
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from resnet_jax.errors import check_choice
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.runs import recipe
from resnet_jax.runtime import parallel
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import TrainState

Batch = tuple[jax.Array, jax.Array]
Metrics = dict[str, jax.Array]


def sgd(
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    *,
    weight_decay_mask: str = "kernels",
    nesterov: bool = False,
    max_grad_norm: float | None = None,
    layer_decay: float = 1.0,
    frozen: Collection[str] = (),
) -> optax.GradientTransformation:
    """SGD with momentum and L2 weight decay (v1 §3.4), before the learning rate.

    The update is v ← momentum · v + (gradient + weight_decay · w); w ← w − lr · v. (Caffe, in
    which the papers' networks were trained, multiplies the learning rate into v: the two differ
    for some steps after it drops.)

    Args:
      weight_decay_mask: "kernels" decays convolutions and the classifier; "all" also biases and
        batch norm's scales, as fb.resnet.torch does.
      max_grad_norm: gradients whose norm, over all parameters together, is above it are first
        scaled down to it (Pascanu et al. 2013); None leaves them as they are.
      layer_decay: factor by which the learning rate falls from each layer to the one before it;
        the classifier has the whole. It undoes a gradient that grows by 1 / layer_decay a layer.
      frozen: parts of the network that get no update.
    """
    check_choice("weight_decay_mask", weight_decay_mask, recipe.WEIGHT_DECAY_MASKS)
    mask = None if weight_decay_mask == "all" else _kernels
    steps = [optax.add_decayed_weights(weight_decay, mask), optax.trace(momentum, nesterov)]
    if max_grad_norm is not None:
        steps.insert(0, optax.clip_by_global_norm(max_grad_norm))
    if frozen:
        steps = [_freeze(optax.chain(*steps), frozen)]
    if layer_decay != 1.0:  # Of all layers, the frozen ones among them.
        steps.append(_scale_by_layer(layer_decay))
    return optax.chain(*steps) if len(steps) > 1 else steps[0]


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of the n-th last layer by decay^(n − 1)."""

    def scale(updates, _):
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        layers = {_layer(_names(path)) for path, _ in leaves}
        above = {layer: number for number, layer in enumerate(sorted(layers, reverse=True))}
        return _map(lambda path, update: decay ** above[_layer(path)] * update, updates)

    return optax.stateless(scale)


def _layer(path: tuple[str, ...]) -> tuple[float, int, int]:
    """Where a parameter stands; what has no number in a block goes with its first convolution."""
    block = re.fullmatch(r"stage(\d+)_unit(\d+)", path[0])
    if block:
        number = re.search(r"\d", path[1])
        return int(block[1]), int(block[2]), int(number[0]) if number else 1
    return (0, 0, 0) if path[0].startswith("stem") else (math.inf, 0, 0)


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def cross_entropy(
    logits: jax.Array | np.ndarray, labels: jax.Array | np.ndarray, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of each example, float32 [batch], from logits [batch, classes]."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def wrong(logits: jax.Array | np.ndarray, labels: jax.Array | np.ndarray) -> jax.Array:
    """Which examples are errors: bool [batch], from logits [batch, classes] and int labels.

    An example whose loss is not finite is one: the argmax of what is NaN is class 0, which would be
    right for some.
    """
    return (logits.argmax(-1) != labels) | ~jnp.isfinite(cross_entropy(logits, labels))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    label_smoothing: float = 0.0,
    grad_accum_steps: int = 1,
    frozen: Collection[str] = (),
    mesh: Mesh | None = None,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Makes `train_step(state, (images, labels), key) -> (state, metrics)`.

    The metrics are float32 []: `loss` (cross-entropy, without the L2 term), `error` (a fraction),
    `gradient_norm` and `learning_rate`.

    Args:
      grad_accum_steps: parts in which the batch goes through the network, one after another, to
        save memory. The update is the same as for the whole batch where no batch-norm group is
        larger than a part.
      frozen: parts of the network that stay as they are; `sgd` leaves them out.
      mesh: devices that share the parts; without one a part stays where its examples are.
      axis_name: of `jax.pmap`, whose devices' means make the update: the batch is then a device's
        part. None where `jax.jit` divides the whole batch.
    """
    if frozen and model.scanned_blocks:
        raise ValueError("blocks in a loop lack the names that freezing needs: scan_blocks=False")
    gradients = partial(_gradients, model, label_smoothing=label_smoothing, frozen=frozen)

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """One update; `batch` is images and labels, `key` draws what dropout drops."""
        if grad_accum_steps == 1:
            means = gradients(state, batch, key)
        else:
            means = _mean_over_parts(
                partial(gradients, state),
                _parts(batch, grad_accum_steps, model.architecture, mesh),
                jax.random.split(key, grad_accum_steps),
            )
        if axis_name is not None:
            means = jax.lax.pmean(means, axis_name)
        grads, loss, error, batch_stats = means
        rate = schedule.rate(state.schedule, state.step)
        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda w, v: w - rate * v, state.params, direction)
        metrics = {
            "loss": loss,
            "error": error,
            "gradient_norm": optax.global_norm(grads),
            "learning_rate": rate,
        }
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=keep_frozen(state.batch_stats, batch_stats, frozen),
            opt_state=opt_state,
            schedule=schedule.after_step(state.schedule, error),
        )
        return state, metrics

    return train_step


def _gradients(
    model: nn.Module,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    label_smoothing: float,
    frozen: Collection[str],
) -> tuple[Any, jax.Array, jax.Array, Any]:
    """Of a batch: the loss's gradients, the loss, the error and the batch statistics after it.

    Loss and error are means over the batch, float32 []. `key` draws what dropout drops.
    """
    images, labels = batch

    def loss_of(params):
        """The mean loss; and it, the error and the batch statistics once more, as values."""
        params = stop_gradients(params, frozen)
        with as_fixed_functions(frozen):
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        loss = cross_entropy(logits, labels, label_smoothing).mean()
        error = jnp.mean(wrong(logits, labels), dtype=jnp.float32)
        return loss, (loss, error, updates.get("batch_stats", {}))

    grads, (loss, error, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    return grads, loss, error, batch_stats


def _parts(batch: Batch, parts: int, net: Architecture, mesh: Mesh | None) -> Batch:
    """[batch, …] -> [parts, batch / parts, …].

    Batch-norm groups are dealt out whole and in turn: where every device has some for each part, no
    example changes its device.
    """

    def deal(x):
        group = 1 if net.norm == "none" else net.bn_group_size or len(x) // parts
        x = x.reshape(-1, parts, group, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(parts, -1, *x.shape[3:])
        # Else a part of few groups lies on few devices, and every device computes every part.
        return jax.lax.with_sharding_constraint(x, parallel.sharded(mesh, axis=1)) if mesh else x

    return jax.tree.map(deal, batch)


def _mean_over_parts(function: Callable, batch: Batch, keys: jax.Array) -> Any:
    """The mean of `function(part, key)` over the parts of the batch, [parts, batch / parts, …].

    Every part starts from the same batch statistics, so their mean is that over all groups.
    """
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], batch), keys[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    total, _ = jax.lax.scan(body, zeros, (batch, keys))
    return jax.tree.map(lambda leaf: leaf / len(keys), total)


def is_frozen(path: tuple[str, ...], frozen: Collection[str]) -> bool:
    """Whether the variable or module at that path, such as ("stage1_unit2", "norm1"), is."""
    top = path[0]
    part = "stem" if top in ("stem", "stem_norm") else top.split("_")[0]
    return part in frozen or (recipe.BATCH_NORM in frozen and any("norm" in name for name in path))


def _freeze(
    whole: optax.GradientTransformation, frozen: Collection[str]
) -> optax.GradientTransformation:
    """`whole` for what is trained, and no update for the rest, of which it keeps no state."""
    label = lambda path, _: "frozen" if is_frozen(path, frozen) else "trained"
    transformations = {"trained": whole, "frozen": optax.set_to_zero()}
    return optax.multi_transform(transformations, lambda params: _map(label, params))


def stop_gradients(params: Any, frozen: Collection[str]) -> Any:
    """The parameters; nothing is differentiated further back than the first that is trained."""
    if not frozen:
        return params
    return _map(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if is_frozen(path, frozen) else leaf, params
    )


def keep_frozen(old: Any, new: Any, frozen: Collection[str]) -> Any:
    """The `new` batch statistics, but the `old` ones, to the bit, of what is frozen."""
    if not frozen:
        return new
    return _map(lambda path, before, after: before if is_frozen(path, frozen) else after, old, new)


def as_fixed_functions(frozen: Collection[str]) -> contextlib.AbstractContextManager:
    """Within, frozen batch norms and dropouts of a network that is traced run as in evaluation."""
    if not frozen:
        return contextlib.nullcontext()

    def interceptor(call: Callable, args, kwargs, context):
        module = context.module
        if isinstance(module, BatchNorm) and is_frozen(module.path, frozen):
            return call(*args[:1], train=False)
        if isinstance(module, nn.Dropout) and is_frozen(module.path, frozen):
            return args[0]
        return call(*args, **kwargs)

    return nn.intercept_methods(interceptor)


def _map(function: Callable, *trees: Any) -> Any:
    """Maps over leaves with the names that lead to them first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(_names(path), *leaves), *trees
    )


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(entry.key for entry in path)
