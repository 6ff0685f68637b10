"""The straightforward loop in flax.linen: batches from the host, one step a call.

    python -m benchmarks.baselines.linen_loop --net=resnet-20 --batch_size=128

As in linen's own examples: `nn.BatchNorm` over the batch, optax's SGD, a jitted step with donated
state, augmentation in NumPy, for which an accelerator waits where images are large.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state

from benchmarks.baselines import serve
from benchmarks.baselines.networks import layout


class TrainState(train_state.TrainState):
    batch_stats: dict


class Net(nn.Module):
    name_of_net: str
    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        net = layout(self.name_of_net)
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        )
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        if net.imagenet:
            x = nn.relu(norm()(conv(64, (7, 7), 2, padding=3)(x)))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        else:
            x = nn.relu(norm()(conv(16, (3, 3))(x)))
        for channels, stride in net.blocks:
            if net.bottleneck:
                y = nn.relu(norm()(conv(channels // 4, (1, 1), stride)(x)))
                y = nn.relu(norm()(conv(channels // 4, (3, 3))(y)))
                y = norm()(conv(channels, (1, 1))(y))
            else:
                y = nn.relu(norm()(conv(channels, (3, 3), stride, padding=1)(x)))
                y = norm()(conv(channels, (3, 3))(y))
            if net.residual and net.projects and x.shape != y.shape:
                y = y + norm()(conv(channels, (1, 1), stride)(x))
            elif net.residual:
                x = x[:, ::stride, ::stride]
                y = y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
            x = nn.relu(y)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state, images, labels):
    def loss_of(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(variables, images, train=True, mutable="batch_stats")
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, updates)

    (loss, (logits, updates)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=updates["batch_stats"])
    return state, {"loss": loss, "error": jnp.mean(logits.argmax(-1) != labels)}


def _batch(random, images, labels, batch_size, padding):
    """A random batch, padded, cropped and flipped, float32 [batch, height, width, 3]."""
    chosen = random.integers(len(images), size=batch_size)
    size = images.shape[1]
    padded = np.pad(images[chosen], ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    top, left = random.integers(2 * padding + 1, size=(2, batch_size, 1))
    rows, columns = top + np.arange(size), left + np.arange(size)
    flip = random.random((batch_size, 1)) < 0.5
    columns = np.where(flip, columns[:, ::-1], columns)
    cropped = padded[np.arange(batch_size)[:, None, None], rows[:, :, None], columns[:, None]]
    return cropped.astype(np.float32) / 255 - 0.5, labels[chosen]


def main() -> None:
    """Trains when it is told to."""
    asked = serve.arguments(("float32",))
    serve.serve(lambda: _trainer(asked))


def _trainer(asked):
    random = np.random.default_rng(0)
    shape = (asked.num_examples, asked.image_size, asked.image_size, 3)
    images = random.integers(256, size=shape, dtype=np.uint8)
    labels = random.integers(asked.num_classes, size=asked.num_examples, dtype=np.int32)
    model = Net(asked.net, asked.num_classes)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *shape[1:])), train=False)
    decay = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.chain(optax.add_decayed_weights(1e-4, decay), optax.sgd(0.1, momentum=0.9)),
    )

    padding = 0 if layout(asked.net).imagenet else 4

    def train(num_steps: int) -> int:
        nonlocal state
        for _ in range(num_steps):
            batch = _batch(random, images, labels, asked.batch_size, padding)
            state, metrics = train_step(state, *batch)
        jax.block_until_ready((state, metrics))
        return num_steps

    return train


if __name__ == "__main__":
    main()
