"""Crops are the papers': resized and cropped, at random or in the centre, of any picture."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import image_ops

RNG = np.random.default_rng(0)
CROPS = image_ops.CropConfig(size=24, scales=(28, 50), shorter_side=28)
SHAPES = [(60, 90), (90, 60), (33, 33), (20, 70), (500, 40)]


def picture(height: int, width: int) -> np.ndarray:
    noise = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


def resize_and_crop(pixels, shorter: int, size: int, corner) -> np.ndarray:
    """The two steps, whole pixels each, that `render` takes at once."""
    height, width, _ = pixels.shape
    ratio = shorter / min(height, width)
    whole = (max(shorter, round(width * ratio)), max(shorter, round(height * ratio)))
    resized = np.asarray(Image.fromarray(pixels).resize(whole, Image.Resampling.BILINEAR))
    left, top = corner(whole[0] - size, whole[1] - size)
    return resized[top : top + size, left : left + size].astype(int)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [False, True])
def test_scale_is_resizing_the_shorter_side_and_cropping(shape: tuple[int, int], flip: bool):
    pixels, draws = picture(*shape), RNG.random(image_ops.NUM_UNIFORMS)
    draws[-1] = 0.1 if flip else 0.9
    crop = image_ops.scaled_crop(*shape, CROPS, draws)
    corner = lambda across, down: (int(draws[1] * (across + 1)), int(draws[2] * (down + 1)))
    expected = resize_and_crop(pixels, 28 + int(draws[0] * 23), 24, corner)
    expected = expected[:, ::-1] if flip else expected
    np.testing.assert_allclose(image_ops.render(pixels, crop, 24), expected, atol=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_centre_is_in_the_middle_of_the_resized_picture(shape: tuple[int, int]):
    pixels = picture(*shape)
    seen = image_ops.render(pixels, image_ops.centre_crop(*shape, CROPS), 24)
    expected = resize_and_crop(pixels, 28, 24, lambda across, down: (across // 2, down // 2))
    np.testing.assert_allclose(seen, expected, atol=3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [*SHAPES, (9, 90), (2, 400), (301, 3)])
def test_square_is_the_middle_of_the_resized_picture(shape: tuple[int, int], channels: int):
    """To the bit, but of strips."""
    pixels = picture(*shape)
    middle = lambda across, down: (across // 2, down // 2)
    expected = resize_and_crop(pixels, 28, 24, middle)[..., :channels]
    seen = image_ops.centre_square(pixels[..., :channels], 24, 28)
    np.testing.assert_allclose(seen, expected, atol=1 if max(shape) > 10 * min(shape) else 0)


@pytest.mark.parametrize("shape", [(1, 8000), (8000, 1)])
def test_square_of_a_strip_takes_little_memory(shape: tuple[int, int], monkeypatch):
    resized = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda *args, **more: resized.append(args[1]) or resize(*args, **more),
    )
    pixels = np.full((*shape, 3), 77, np.uint8)
    assert (image_ops.centre_square(pixels, 24) == 77).all()
    assert resized == [(24, 24)]


def test_all_scales_and_places_are_drawn():
    drawn = [
        image_ops.scaled_crop(100, 150, CROPS, RNG.random(image_ops.NUM_UNIFORMS))
        for _ in range(4000)
    ]
    sides = np.array([100 * 24 / crop.width for crop in drawn])
    scales, counts = np.unique(np.round(sides).astype(int), return_counts=True)
    assert scales.tolist() == list(range(28, 51))
    assert counts.min() > 100
    largest = [crop for crop in drawn if crop.height > 80]  # of side 28 to 29
    assert {round(crop.top * 28 / 100) for crop in largest} == set(range(6))
    assert min(crop.left for crop in drawn) == 0
    assert max(crop.left + crop.width for crop in drawn) == pytest.approx(150)
    assert 0.45 < np.mean([crop.flip for crop in drawn]) < 0.55


def test_boxes_have_the_areas_and_aspects_of_inception():
    drawn = [
        image_ops.random_resized_crop(300, 400, CROPS, RNG.random(image_ops.NUM_UNIFORMS))
        for _ in range(4000)
    ]
    areas = np.array([crop.width * crop.height / 120_000 for crop in drawn])
    aspects = np.array([crop.width / crop.height for crop in drawn])
    assert 0.078 < areas.min() < 0.1
    assert 0.9 < areas.max() <= 1
    # Uniform, but for large ones, not all of which fit.
    assert np.median(areas[areas < 0.4]) == pytest.approx((0.08 + 0.4) / 2, rel=0.05)
    assert 0.74 < aspects.min() < 0.76
    assert 1.32 < aspects.max() < 1.35
    assert np.median(np.log(aspects[areas < 0.3])) == pytest.approx(0, abs=0.03)
    for crop in drawn:
        assert 0 <= crop.left <= 400 - crop.width
        assert 0 <= crop.top <= 300 - crop.height


def test_picture_in_which_no_box_fits_is_seen_in_its_centre():
    crop = image_ops.random_resized_crop(500, 4, CROPS, np.full(image_ops.NUM_UNIFORMS, 0.99))
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 247, 4, 5)


def test_nothing_is_mirrored_where_it_must_not_be():
    still = CROPS._replace(flip=False)
    for kind in image_ops.AUGMENTATIONS.values():
        assert not any(
            kind(60, 90, still, RNG.random(image_ops.NUM_UNIFORMS)).flip for _ in range(20)
        )


@pytest.mark.parametrize("name", image_ops.AUGMENTATIONS)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 1000)])
def test_every_shape_of_picture_gives_a_square(name: str, shape: tuple[int, int]):
    for _ in range(50):
        crop = image_ops.AUGMENTATIONS[name](*shape, CROPS, RNG.random(image_ops.NUM_UNIFORMS))
        assert image_ops.render(np.full((*shape, 3), 77, np.uint8), crop, 24).shape == (24, 24, 3)


def test_decoding_leaves_what_the_largest_scale_needs():
    assert image_ops.min_side("scale", CROPS) == 50
    assert image_ops.min_side("centre", CROPS) == 28
    assert image_ops.min_side("random_resized_crop", CROPS) is None
