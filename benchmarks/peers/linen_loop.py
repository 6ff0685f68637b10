"""The straightforward loop in flax.linen: batches from the host, one step a dispatch.

    python -m benchmarks.peers.linen_loop --net=resnet-20 --batch_size=128

As in linen's own examples: `nn.BatchNorm` over the batch, optax's SGD, a jitted step with donated
state, augmentation in NumPy. Its CIFAR net is v1's (§4.2), with option A.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state

from benchmarks.peers import turns
from benchmarks.peers.nets import cifar_units

PADDING = 4


class TrainState(train_state.TrainState):
    batch_stats: dict


class Net(nn.Module):
    name_of_net: str
    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        residual, units = cifar_units(self.name_of_net)
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        )
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm()(conv(16, (3, 3))(x)))
        for channels, stride in units:
            y = nn.relu(norm()(conv(channels, (3, 3), stride, padding=1)(x)))
            y = norm()(conv(channels, (3, 3))(y))
            if residual:
                x = x[:, ::stride, ::stride]
                y = y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
            x = nn.relu(y)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state, images, labels):
    def loss_of(params):
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, updates)

    (loss, (logits, updates)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=updates["batch_stats"])
    return state, {"loss": loss, "error": jnp.mean(logits.argmax(-1) != labels)}


def _batch(random, images, labels, batch_size):
    """A random batch, padded, cropped and flipped, float32 [batch, height, width, 3]."""
    chosen = random.integers(len(images), size=batch_size)
    size = images.shape[1]
    padded = np.pad(images[chosen], ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    top, left = random.integers(2 * PADDING + 1, size=(2, batch_size, 1))
    rows, columns = top + np.arange(size), left + np.arange(size)
    flip = random.random((batch_size, 1)) < 0.5
    columns = np.where(flip, columns[:, ::-1], columns)
    cropped = padded[np.arange(batch_size)[:, None, None], rows[:, :, None], columns[:, None]]
    return cropped.astype(np.float32) / 255 - 0.5, labels[chosen]


def main() -> None:
    """Serves turns of training."""
    asked = turns.arguments(("float32",))
    turns.serve(lambda: _trainer(asked))


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

    def train(num_steps: int) -> int:
        nonlocal state
        for _ in range(num_steps):
            state, metrics = train_step(state, *_batch(random, images, labels, asked.batch_size))
        jax.block_until_ready((state, metrics))
        return num_steps

    return train


if __name__ == "__main__":
    main()
