"""The peers do the same work as ours: as many weights, and they learn."""

import subprocess
import sys

import pytest

from benchmarks.peers import PYTORCH_SETTINGS
from benchmarks.peers.nets import layout
from resnet_jax.errors import InputError
from resnet_jax.models import counting, zoo

NETS = ("plain-20", "resnet-20", "plain-18", "resnet-34", "resnet-50")


@pytest.mark.parametrize("net", NETS)
def test_linen_peer_has_the_same_net(net):
    from benchmarks.peers.linen_loop import Net

    ours = counting.count(zoo.create(net, num_classes=10), (64, 64, 3))
    assert counting.count(Net(net, 10), (64, 64, 3)) == ours


@pytest.mark.torch
@pytest.mark.parametrize("net", NETS)
def test_pytorch_peer_has_the_same_net(net):
    pytest.importorskip("torch")
    import torch

    from benchmarks.peers.pytorch import Net

    multiply_adds = []

    def add(layer, inputs, output):
        multiply_adds.append(output.numel() * layer.weight[0].numel())

    theirs = Net(net, 10)
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(add)
    theirs(torch.zeros(2, 3, 64, 64))
    ours = counting.count(zoo.create(net, num_classes=10), (64, 64, 3))
    assert sum(weight.numel() for weight in theirs.parameters()) == ours.num_params
    assert sum(multiply_adds) == 2 * ours.multiply_adds


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


@pytest.mark.parametrize("name", ["resnet-2x", "resnet-21", "preact-resnet-20", "plain-2"])
def test_peers_that_there_are_not_are_one_line(name):
    with pytest.raises(InputError, match=f"net='{name}': peers have plain-N and resnet-N"):
        layout(name)
