"""This project's own training step, on random images that stay on the device.

python -m benchmarks.baselines.ours --net=resnet-20 --batch_size=128
"""

import jax

from benchmarks.baselines import serve
from benchmarks.baselines.networks import layout
from configs import cifar10, imagenet
from resnet_jax.runs import Recipe
from resnet_jax.runtime import setup
from resnet_jax.training import trainer


def main() -> None:
    """Trains when it is told to."""
    asked = serve.arguments(("float32", "bfloat16"))
    family = imagenet if layout(asked.net).imagenet else cifar10
    config = family.get_config(asked.net)
    config.batch_size = asked.batch_size
    config.model.dtype = asked.setting
    config.model.bn_group_size = min(config.model.bn_group_size, asked.batch_size)
    config.deterministic = False
    recipe = Recipe.from_config(config)
    setup.prepare(deterministic=recipe.deterministic, onednn=recipe.onednn)
    serve.serve(lambda: _trainer(recipe, asked))


def _trainer(recipe, asked):
    shape = (asked.image_size, asked.image_size, 3)
    experiment = trainer.with_random_data(recipe, shape, asked.num_classes, asked.num_examples)
    run_steps, data = experiment.make_run_steps(), experiment.splits["train"]
    steps_per_call = experiment.intervals().steps_per_call
    now, state = 0, experiment.initial_state()

    def train(num_steps: int) -> int:
        nonlocal now, state
        began = now
        while now - began < num_steps:  # On accelerators a call makes many steps.
            state = run_steps(state, data, now, now + steps_per_call)
            now += steps_per_call
        jax.block_until_ready(state)
        return now - began

    return train


if __name__ == "__main__":
    main()
