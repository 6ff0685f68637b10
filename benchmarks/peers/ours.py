"""This project's own training step, on random images that stay on the device.

python -m benchmarks.peers.ours --net=resnet-20 --batch_size=128
"""

import jax

from benchmarks.peers import turns
from benchmarks.peers.nets import layout
from configs import cifar10, imagenet
from resnet_jax.runs import Recipe
from resnet_jax.training import trainer


def main() -> None:
    """Serves turns of training."""
    asked = turns.arguments(("float32", "bfloat16"))
    family = imagenet if layout(asked.net).imagenet else cifar10
    config = family.get_config(asked.net)
    config.batch_size = asked.batch_size
    config.model.dtype = asked.setting
    config.model.bn_group_size = min(config.model.bn_group_size, asked.batch_size)
    config.deterministic = False
    turns.serve(lambda: _trainer(Recipe.from_config(config), asked))


def _trainer(recipe, asked):
    shape = (asked.image_size, asked.image_size, 3)
    subject = trainer.with_random_data(recipe, shape, asked.num_classes, asked.num_examples)
    advance, data, chunk = (
        subject.make_run_steps(),
        subject.splits["train"],
        subject.intervals().steps_per_call,
    )
    now, state = 0, subject.initial_state()

    def train(num_steps: int) -> int:
        nonlocal now, state
        began = now
        while now - began < num_steps:  # On accelerators a dispatch makes many steps.
            state = advance(state, data, now, now + chunk)
            now += chunk
        jax.block_until_ready(state)
        return now - began

    return train


if __name__ == "__main__":
    main()
