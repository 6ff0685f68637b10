"""What makes training faster leaves the losses as they are.

Against the plain path, over ten steps: the relative difference of each loss is below 1e-4.
"""

import functools
import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import zoo
from resnet_jax.runtime import cpu

TEN_STEPS = """
import json, jax
from configs import cifar10
from resnet_jax.runs import Recipe
from resnet_jax.runtime import setup
from resnet_jax.training import trainer
setup.prepare(onednn={onednn})
config = cifar10.get_config("resnet-14,batch_size=16,model.bn_group_size=8,model.width=4")
config.schedule.learning_rate = 0.01
config.num_devices, config.onednn = 1, {onednn}
config.remat, config.scan_blocks = {remat!r}, {scan_blocks}
subject = trainer.with_random_data(Recipe.from_config(config), (16, 16, 3), 10, 64)
state, advance, losses = subject.initial_state(), subject.make_run_steps(), []
for step in range(10):
    before = float(state.window.loss)
    state = advance(state, subject.splits["train"], step, step + 1)
    losses.append(float(state.window.loss) - before)
"""


@functools.cache
def losses(remat: str = "none", scan_blocks: bool = False) -> list[float]:
    scope = {}
    exec(TEN_STEPS.format(onednn=False, remat=remat, scan_blocks=scan_blocks), scope)
    return scope["losses"]


@pytest.mark.slow
def test_weight_gradient_in_parts(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    parts, plain = [], cpu._num_parts
    count = lambda *arrays: parts.append(plain(*arrays)) or parts[-1]
    monkeypatch.setattr(cpu, "_num_parts", count)
    whole = losses.__wrapped__()
    assert set(parts) == {1}
    monkeypatch.setattr(cpu, "PART", 2**14)
    np.testing.assert_allclose(losses.__wrapped__(), whole, rtol=1e-4)
    assert max(parts) > 1


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["activations", "blocks"])
def test_remat(remat):
    np.testing.assert_allclose(losses(remat), losses(), rtol=1e-4)


@pytest.mark.slow
def test_units_in_a_loop():
    np.testing.assert_allclose(losses(scan_blocks=True), losses(), rtol=1e-4)


def test_remat_needs_less_memory():
    everything, convolutions, units = map(saved_numbers, ("none", "activations", "blocks"))
    assert convolutions < everything * 0.6
    assert units < convolutions * 0.6


def saved_numbers(remat: str) -> int:
    """How many numbers the forward pass keeps for the backward pass."""
    model = zoo.create("resnet-32", num_classes=10, width=4, remat=remat)
    images = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    logits = lambda x, v: model.apply(v, x, train=True, mutable=["batch_stats"])[0]
    backward = jax.make_jaxpr(lambda v, x: jax.vjp(partial(logits, x), v)[1])
    return sum(leaf.size for leaf in backward(variables, images).out_avals)


@pytest.mark.slow
@pytest.mark.skipif(
    not cpu.onednn_pays(),
    reason="oneDNN is not used with this version of JAX",
)
def test_onednn():
    losses, kernels = zip(*map(ten_steps_elsewhere, (False, True)), strict=True)
    # Not by the losses: a process with one core rounds alike both ways.
    assert ["__onednn$convolution" in used for used in kernels] == [False, True]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def ten_steps_elsewhere(onednn: bool) -> tuple[list[float], dict[str, int]]:
    """The losses, and what computes the convolutions."""
    code = (
        TEN_STEPS.format(onednn=onednn, remat="none", scan_blocks=False)
        + """
from resnet_jax.runtime import parallel
program = advance.lower(state, subject.splits["train"], 10, 11).compile().as_text()
print(json.dumps([losses, parallel.convolution_kernels(program)]))
"""
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return tuple(json.loads(done.stdout))
