"""The peers do the same work as ours: as many weights, and they learn."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks.peers import PYTORCH_SETTINGS
from resnet_jax.models import counting, zoo

NETS = ("plain-20", "resnet-20", "plain-18", "resnet-34", "resnet-50")


@pytest.mark.parametrize("net", NETS)
def test_linen_peer_has_the_same_net(net):
    from benchmarks.peers.linen_loop import Net

    variables = jax.eval_shape(
        lambda: Net(net, 10).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    # Its convolutions have no biases, its batch norms do: as ours.
    ours = counting.count(zoo.create(net, num_classes=10), (32, 32, 3)).num_params
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == ours


@pytest.mark.torch
@pytest.mark.parametrize("net", NETS)
def test_pytorch_peer_has_the_same_net(net):
    pytest.importorskip("torch")
    from benchmarks.peers.pytorch import Net

    ours = counting.count(zoo.create(net, num_classes=10), (32, 32, 3)).num_params
    assert sum(weight.numel() for weight in Net(net, 10).parameters()) == ours


def program(peer, net):
    module = f"benchmarks.peers.{peer}"
    return [sys.executable, "-m", module, f"--net={net}", "--batch_size=8", "--image_size=8"]


@pytest.mark.parametrize("net", ["plain-8", "resnet-18"])
@pytest.mark.parametrize("peer", ["ours", "linen_loop", "pytorch"])
def test_contestant_trains_when_it_is_told_to(peer, net):
    if peer == "pytorch":
        pytest.importorskip("torch")
    done = subprocess.run(
        [*program(peer, net), "--num_examples=16"],
        input="2\n3\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ready, *turns = done.stdout.split("\n")[:-1]
    assert ready.startswith("ready ")
    assert len(turns) == 2
    made = [turn.split() for turn in turns]
    assert [int(steps) for steps, _ in made] == [2, 3]
    assert all(float(seconds) > 0 for _, seconds in made)


def test_settings_of_pytorch_are_told_when_one_is_misspelt():
    done = subprocess.run(
        [*program("ours", "plain-8"), "--setting=float3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "float32" in done.stderr
    assert "channels_last" in PYTORCH_SETTINGS
