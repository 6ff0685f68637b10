"""torchvision's ResNets and ours give the same logits for pictures of 224×224."""

import sys
import types

import jax
import numpy as np
import pytest

from resnet_jax.interop import pytorch_names
from resnet_jax.models import zoo

torch = pytest.importorskip("torch")
import test_against_pytorch as pytorch  # noqa: E402

pytestmark = pytest.mark.torch

STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def ours_in_pytorch(depth: int):
    """Written from the papers and torchvision's documentation, in `test_against_pytorch`."""
    return pytorch.torchvision(*STAGES[depth], bottleneck=depth >= 50)()


def torchvisions_own(depth: int):
    # Its builds for GPUs declare detectors' operators, at which PyTorch's build for CPUs stumbles.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("declarations"))
    library = pytest.importorskip("torchvision")
    return getattr(library.models, f"resnet{depth}")(num_classes=10)


@pytest.mark.parametrize("make", [ours_in_pytorch, torchvisions_own])
@pytest.mark.parametrize(
    "depth",
    [18, pytest.param(50, marks=pytest.mark.weekly), pytest.param(101, marks=pytest.mark.weekly)],
)
def test_random_weights_give_the_same_logits(make, depth):
    torch.manual_seed(0)
    net, images = make(depth), pytorch.random_images(2, 224)
    pytorch.randomise(net)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = None  # Statistics of these very images, lest 100 layers explode.
                part.reset_running_stats()
        net.train()(pytorch.nchw(images))
        expected = net.eval()(pytorch.nchw(images)).numpy()
    weights = pytorch_names.from_torch({name: t.numpy() for name, t in net.state_dict().items()})
    assert weights.overrides == ({"downsample_in": "3x3"} if depth >= 50 else {})
    model = zoo.create(weights.name, weights.num_classes, **weights.overrides)
    logits = np.asarray(jax.jit(model.apply)(weights.variables, images))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    # The stride's place matters, so the test would notice if it were on the 1×1.
    if depth >= 50:
        other = zoo.create(weights.name, weights.num_classes)
        elsewhere = np.asarray(jax.jit(other.apply)(weights.variables, images))
        assert np.abs(elsewhere - expected).max() > 0.1 * np.abs(expected).max()
