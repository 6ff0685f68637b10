"""Views of real photographs score as in a plain loop over crops, one at a time."""

import functools
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import image_ops
from resnet_jax.data.device_dataset import Normalization
from resnet_jax.data.image_ops import TEST_CROPS, cut
from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.runtime import parallel
from resnet_jax.training.multi_crop import MultiCropPredictor, filled_shape

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "imagenet-sample"
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def photographs(count: int) -> list[bytes]:
    paths = sorted(SAMPLE.glob("*.JPEG"))[:: 125 // count][:count]
    if not paths:
        pytest.skip(f"needs {SAMPLE}")
    return [path.read_bytes() for path in paths]


def net(name: str, size: int, **axes):
    model = zoo.create(name, 5, width=4, **axes)
    shape = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    variables = model.lazy_init(jax.random.key(3), shape, train=False)
    # The classifier starts small; the classes must differ, lest any average would do.
    variables["params"]["classifier"]["kernel"] *= 4
    noise = jax.random.normal(jax.random.key(4), (4, size, size, 3))
    return model, with_statistics_of(model, variables, noise)


def scorer(model, variables, size: int, **options) -> MultiCropPredictor:
    normalization = Normalization(np.broadcast_to(MEAN, (size, size, 3)), STD)
    mesh = parallel.make_mesh(2, 2, 2)
    return MultiCropPredictor(
        model, variables, normalization, mesh, pixels=4 * size * size, **options
    )


@functools.partial(jax.jit, static_argnums=0)
def jit_apply(model, variables, image):
    return model.apply(variables, image, train=False)


def slowly(model, variables, encoded: bytes, view: str, size: int) -> np.ndarray:
    """Probabilities by the definition: Pillow, loops, and the net itself on each crop."""
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    sides = {"centre": [256], "10-crop": [256], "single-320": [320]}.get(
        view, [224, 256, 384, 480, 640]
    )
    seen = []
    for side in (round(side * size / 224) for side in sides):
        width, height = picture.size
        factor = side / min(width, height)
        to = max(side, round(width * factor)), max(side, round(height * factor))
        scaled = np.asarray(picture.resize(to, Image.Resampling.BILINEAR))
        square = size if view != "single-320" else side
        down, right = scaled.shape[0] - square, scaled.shape[1] - square
        if view == "multi-scale":
            crops = [scaled]
        elif view == "10-crop":
            places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
            crops = [scaled[y : y + square, x : x + square] for y, x in places]
        else:
            y, x = down // 2, right // 2
            crops = [scaled[y : y + square, x : x + square]]
        mirrored = [np.fliplr(crop) for crop in crops]
        for crop in crops + (mirrored if view in ("10-crop", "multi-scale") else []):
            image = (crop[None] / np.float32(255) - MEAN) / STD
            logits = np.asarray(jit_apply(model, variables, image), np.float64)[0]
            seen.append(np.exp(logits) / np.exp(logits).sum())
    return np.mean(seen, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "view",
    [
        pytest.param(view, marks=[pytest.mark.weekly] if view == "multi-scale" else [])
        for view in TEST_CROPS
    ],
)
def test_scores_are_those_of_a_slow_loop_on_photographs(view):
    size, encoded = 32, photographs(4)
    model, variables = net("resnet-8", size)
    crops = [cut(image_ops.decode(data), TEST_CROPS[view], size) for data in encoded]
    scores = np.exp(scorer(model, variables, size)(crops))
    expected = [slowly(model, variables, data, view, size) for data in encoded]
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-5)
    assert np.std(expected, axis=0).max() > 0.01  # Not all photographs look alike to it.


def test_unlikely_classes_keep_their_probabilities():
    model, variables = net("resnet-8", 32)
    variables["params"]["classifier"]["bias"] += np.array([0, 0, 0, 0, -2000.0])
    crops = list(np.zeros((2, 32, 32, 3), np.uint8))
    (scores,) = scorer(model, variables, 32)([crops])
    assert -2100 < scores[4] < -1900


@pytest.mark.weekly
@pytest.mark.parametrize("view", TEST_CROPS)
@pytest.mark.parametrize("name", ["resnet-18", "preact-resnet-50"])
def test_imagenet_net_scores_as_in_a_slow_loop_on_photographs(name, view):
    size, encoded = 224, photographs(10)
    model, variables = net(name, size)
    crops = [cut(image_ops.decode(data), TEST_CROPS[view], size) for data in encoded]
    scores = np.exp(scorer(model, variables, size)(crops))
    expected = [slowly(model, variables, data, view, size) for data in encoded]
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-5)


def test_crop_that_is_filled_up_to_a_square_scores_as_alone():
    model, variables = net("resnet-18", 64)
    crop = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    assert filled_shape(48, 60, 32) == (64, 64)
    image = (crop[None] / np.float32(255) - MEAN) / STD
    expected = jax.nn.log_softmax(jit_apply(model, variables, image))
    found = scorer(model, variables, 64)([[crop]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_logits_can_be_averaged_instead():
    model, variables = net("resnet-8", 32)
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    alone = scorer(model, variables, 32)([[crop] for crop in crops])
    geometric = np.exp(alone.mean(0))
    for average, mean in (
        ("probabilities", np.exp(alone).mean(0)),
        ("logits", geometric / geometric.sum()),
    ):
        (together,) = scorer(model, variables, 32, average=average)([crops])
        np.testing.assert_allclose(np.exp(together), mean, rtol=1e-4)
    with pytest.raises(InputError, match="average='median': allowed are probabilities, logits"):
        scorer(model, variables, 32, average="median")


@pytest.mark.parametrize("crop", [np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8)])
def test_crop_of_another_type_or_layout_is_refused(crop):
    with pytest.raises(InputError, match=r"needs uint8 \[height, width, 3\]$"):
        scorer(*net("resnet-8", 32), 32)([[crop]])


def test_few_shapes_are_compiled_for_pictures_of_all_shapes():
    for side in (224, 256, 384, 480, 640):
        longer = range(side, 3 * side)
        shapes = {filled_shape(side, long, 32) for long in longer}
        shapes |= {filled_shape(long, side, 32) for long in longer}
        assert len(shapes) <= 9
        for height, width in ((side, side * 3 // 2), (side * 2, side), (side, side + 1)):
            rows, columns = filled_shape(height, width, 32)
            assert rows >= height
            assert columns >= width
    assert filled_shape(480, 640, 32) == (480, 640)  # Most photographs are filled up by nothing.
    assert filled_shape(101, 101, 32) == (101, 101)
