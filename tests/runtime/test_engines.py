"""`jit` and `pmap` train alike on any number of devices, and send no more than they must."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from configs import digits
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments
from resnet_jax.runtime.parallel import bytes_sent
from resnet_jax.training.trainer import build

STEPS = 20
CONFIG = (
    f"resnet-8,batch_size=32,num_steps={STEPS},model.width=4,model.bn_group_size=4,dataset.flip=True,"
    "dataset.train=train[:200],dataset.test=test[:50],schedule.learning_rate=0.05"
)


class Trained(NamedTuple):
    losses: list[float]
    batch_stats: dict
    sent: dict[str, int]
    least: int  # bytes: of gradients, running statistics, loss and error


def config(**fields):
    return Recipe.from_config(arguments.update(digits.get_config(CONFIG), fields))


@functools.cache
def trained(parallel="jit", num_devices=1, **fields):
    experiment = build(config(parallel=parallel, num_devices=num_devices, **fields))
    state, data = experiment.initial_state(), experiment.splits["train"]
    run_steps = experiment.make_run_steps()
    sent = bytes_sent(run_steps.lower(state, data, 0, 1).compile().as_text())
    least = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.variables)) + 8
    losses = []
    for step in range(STEPS):
        before = float(state.window.loss)
        state = run_steps(state, data, step, step + 1)
        losses.append(float(state.window.loss) - before)
    return Trained(losses, jax.tree.map(np.asarray, state.batch_stats), sent, least)


def assert_same_curve(a, b):
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        a.batch_stats,
        b.batch_stats,
    )


weekly = pytest.mark.weekly


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "devices"),
    [
        ("jit", 8),
        ("pmap", 8),
        pytest.param("jit", 2, marks=weekly),
        pytest.param("pmap", 1, marks=weekly),
        pytest.param("pmap", 2, marks=weekly),
    ],
)
def test_every_engine_draws_the_curve_of_one_device(engine, devices):
    assert_same_curve(trained(engine, devices), trained())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["jit", pytest.param("pmap", marks=weekly)])
def test_accumulation_draws_the_same_curve_on_four_devices(engine):
    assert_same_curve(trained(engine, 4, grad_accum_steps=2), trained())


@weekly
@pytest.mark.parametrize(
    ("group", "engine", "devices"),
    [(16, "jit", 8), (16, "pmap", 2), (8, "pmap", 4), (None, "jit", 4), (None, "pmap", 1)],
)
def test_statistics_groups_are_those_of_the_config(group, engine, devices):
    fields = {"model.bn_group_size": group}
    assert_same_curve(trained(engine, devices, **fields), trained(**fields))


@weekly
@pytest.mark.parametrize(
    "fields", [{"model.shortcut": "dropout"}, {"model.norm": "none", "model.bn_group_size": None}]
)
def test_dropout_and_no_norm_do_not_depend_on_the_devices_either(fields):
    fields = {**fields, "schedule.learning_rate": 0.01}
    assert_same_curve(trained("jit", 8, **fields), trained(**fields))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["jit", "pmap"])
def test_step_sends_its_gradients_and_statistics_once_and_nothing_else(engine):
    run = trained(engine, 8)
    assert run.sent == {"all-reduce": run.least}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["jit", pytest.param("pmap", marks=weekly)])
def test_accumulation_moves_no_example_between_devices(engine):
    run = trained(engine, 4, grad_accum_steps=2)
    assert set(run.sent) == {"all-reduce"}
    # Of `jit` once a part, but the parts' loop has its body in the program once.
    assert run.sent["all-reduce"] <= run.least


@weekly
@pytest.mark.parametrize(
    ("engine", "devices", "grad_accum_steps"), [("jit", 2, 1), ("pmap", 2, 1), ("jit", 2, 2)]
)
def test_blocks_in_a_loop_draw_the_same_curve_on_two_devices(engine, devices, grad_accum_steps):
    fields = {"model.name": "resnet-20", "schedule.learning_rate": 0.01}
    looped = trained(engine, devices, grad_accum_steps=grad_accum_steps, scan_blocks=True, **fields)
    assert_same_curve(looped, trained(**fields))
    assert set(looped.sent) == {"all-reduce"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model.bn_group_size": 16, "num_devices": 4},
            "4 devices cannot share 2 batch-norm group",
        ),
        (
            {"model.shortcut": "dropout", "num_devices": 2},
            "what a network drops is drawn for the whole batch",
        ),
    ],
)
def test_pmap_says_what_it_cannot_do(fields, message):
    with pytest.raises(InputError, match=message) as raised:
        build(config(parallel="pmap", **fields))
    assert str(raised.value).startswith("parallel='pmap'")
    assert "parallel='jit'" in str(raised.value)
