"""One update of the network's weights."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from resnet_jax.errors import check_choice
from resnet_jax.models.architecture import Architecture
from resnet_jax.runtime import parallel
from resnet_jax.training import freezing
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import TrainState

DECAYS = ("kernels", "all")

Batch = tuple[jax.Array, jax.Array]
Metrics = dict[str, jax.Array]


def sgd(
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    *,
    weight_decay_mask: str = "kernels",
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD with momentum and L2 weight decay (v1 §3.4), before the learning rate.

    The update is v ← momentum · v + (gradient + weight_decay · w); w ← w − rate · v. (Caffe, in
    which the papers' nets were trained, multiplies the rate into v: the two differ for some steps
    after a rate drops.)

    Args:
      weight_decay_mask: "kernels" decays convolutions and the classifier; "all" also biases and
        batch norm's scales, as fb.resnet.torch does.
    """
    check_choice("weight_decay_mask", weight_decay_mask, DECAYS)
    mask = None if weight_decay_mask == "all" else _kernels
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask), optax.trace(momentum, nesterov)
    )


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each example, float32 [batch], from logits [batch, classes]."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


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
      frozen: parts of the net that stay as they are, see `freezing`; `optimizer` leaves them out.
      mesh: devices that share the parts; without one a part stays where its examples are.
      axis_name: of `jax.pmap`, whose devices' means make the update: the batch is then a device's
        part. None where `jax.jit` divides the whole batch.
    """
    if frozen and model.loops:
        raise ValueError("units in a loop lack the names that freezing needs: scan_blocks=False")
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
            batch_stats=freezing.keep(state.batch_stats, batch_stats, frozen),
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
        params = freezing.stop_gradients(params, frozen)
        with freezing.as_fixed_functions(frozen):
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        loss = cross_entropy(logits, labels, label_smoothing).mean()
        error = jnp.mean(logits.argmax(-1) != labels, dtype=jnp.float32)
        return loss, (loss, error, updates.get("batch_stats", {}))

    grads, (loss, error, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    return grads, loss, error, batch_stats


def _parts(batch: Batch, parts: int, net: Architecture, mesh: Mesh | None) -> Batch:
    """[batch, …] -> [parts, batch / parts, …].

    Batch-norm groups are dealt out whole and in turn: each part takes some from every device, and
    no example changes its device.
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
