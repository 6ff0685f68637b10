"""What is frozen keeps its bits, is a fixed function, and costs no backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.runs.recipe import parse_freeze
from resnet_jax.training import schedules, state, step

IMAGES = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
LABELS = jnp.arange(8) % 3


def train(frozen: str | None, name: str = "resnet-8", grad_accum_steps: int = 1, **axes):
    """The variables before and after three steps, and the last step's metrics."""
    model = zoo.create(name, 3, width=4, **axes)
    parts = parse_freeze(frozen, model.architecture)
    schedule = schedules.Schedule("constant", 3, 0.1)
    optimizer = step.sgd(weight_decay_mask="all", frozen=parts)
    before = state.create(jax.random.key(0), model, (8, 8, 3), optimizer, schedule)
    train_step = jax.jit(
        step.make_train_step(
            model, optimizer, schedule, frozen=parts, grad_accum_steps=grad_accum_steps
        )
    )
    after = before
    for number in range(3):
        after, metrics = train_step(after, (IMAGES, LABELS), jax.random.key(number))
    return flatten_dict(before.variables), flatten_dict(after.variables), metrics


def changed(before, after) -> set[str]:
    return {
        "/".join(path[1:-1]) for path in before if not np.array_equal(before[path], after[path])
    }


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_frozen_stem_and_stages_keep_their_bits_and_the_rest_learns(grad_accum_steps):
    before, after, _ = train("stem+stage1", grad_accum_steps=grad_accum_steps)
    learning = {"/".join(path[1:-1]) for path in before}
    assert changed(before, after) == {
        name for name in learning if not name.startswith(("stem", "stage1"))
    }


def test_frozen_batch_norm_keeps_scales_and_statistics_and_convolutions_learn():
    before, after, _ = train("batch_norm", "preact-resnet-8")
    everything = {"/".join(path[1:-1]) for path in before}
    assert changed(before, after) == {name for name in everything if "norm" not in name}


def test_frozen_batch_norm_normalises_each_image_by_itself():
    """As in evaluation: what an image gives does not depend on the others in the batch."""
    model = zoo.create("resnet-8", 3, width=4)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    with step.as_fixed_functions({"batch_norm"}):
        logits, updates = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits, model.apply(variables, IMAGES, train=False), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def test_frozen_stage_drops_nothing_of_its_shortcuts():
    """It is a fixed function: what it gives does not depend on the step's random numbers."""
    model = zoo.create("resnet-8", 3, width=4, shortcut="dropout")
    variables = model.init(jax.random.key(0), IMAGES, train=False)

    def stages(key):
        with step.as_fixed_functions({"stem", "stage1", "stage2"}):
            return model.apply(
                variables, IMAGES, train=True, features=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(key)},
            )[0]  # fmt: skip

    evaluated = model.apply(variables, IMAGES, train=False, features=True)
    one, other = stages(1), stages(2)
    for stage in range(2):
        np.testing.assert_array_equal(one[stage], other[stage])
        np.testing.assert_allclose(one[stage], evaluated[stage], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(one[2], other[2])


def test_gradient_norm_is_that_of_what_is_trained():
    *_, everything = train(None)
    *_, classifier = train("stem+stage1+stage2+stage3")
    assert 0 < classifier["gradient_norm"] < everything["gradient_norm"]


def test_frozen_net_has_no_momentum_for_what_is_frozen():
    model = zoo.create("resnet-8", 3, width=4)
    params = model.init(jax.random.key(0), IMAGES, train=False)["params"]
    kept = step.sgd(frozen={"stem", "stage1", "stage2", "stage3"}).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == 16 * 3 + 3


def test_part_that_the_net_has_not_is_named():
    net = zoo.describe("resnet-8")
    assert parse_freeze(None, net) == frozenset()
    with pytest.raises(InputError, match="freeze='stage4': allowed are stem, stage1, stage2"):
        parse_freeze("stem+stage4", net)
    with pytest.raises(InputError, match="freeze='batch_norm'"):
        parse_freeze("batch_norm", zoo.describe("resnet-8", norm="none"))
