"""Crops are the papers': resized and cropped, at random or in the centre, of any picture."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import crops

RNG = np.random.default_rng(0)
FRAMING = crops.Framing(size=24, scales=(28, 50), shorter_side=28)
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
    pixels, draws = picture(*shape), RNG.random(crops.DRAWS)
    draws[-1] = 0.1 if flip else 0.9
    crop = crops.scale(*shape, FRAMING, draws)
    corner = lambda across, down: (int(draws[1] * (across + 1)), int(draws[2] * (down + 1)))
    expected = resize_and_crop(pixels, 28 + int(draws[0] * 23), 24, corner)
    expected = expected[:, ::-1] if flip else expected
    np.testing.assert_allclose(crops.render(pixels, crop, 24), expected, atol=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_centre_is_in_the_middle_of_the_resized_picture(shape: tuple[int, int]):
    pixels = picture(*shape)
    seen = crops.render(pixels, crops.centre(*shape, FRAMING), 24)
    expected = resize_and_crop(pixels, 28, 24, lambda across, down: (across // 2, down // 2))
    np.testing.assert_allclose(seen, expected, atol=3)


def test_all_scales_and_places_are_drawn():
    drawn = [crops.scale(100, 150, FRAMING, RNG.random(crops.DRAWS)) for _ in range(4000)]
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
        crops.random_resized_crop(300, 400, FRAMING, RNG.random(crops.DRAWS)) for _ in range(4000)
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
    crop = crops.random_resized_crop(500, 4, FRAMING, np.full(crops.DRAWS, 0.99))
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 247, 4, 5)


def test_nothing_is_mirrored_where_it_must_not_be():
    still = FRAMING._replace(flip=False)
    for kind in crops.AUGMENTATIONS.values():
        assert not any(kind(60, 90, still, RNG.random(crops.DRAWS)).flip for _ in range(20))


@pytest.mark.parametrize("name", crops.AUGMENTATIONS)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 1000)])
def test_every_shape_of_picture_gives_a_square(name: str, shape: tuple[int, int]):
    for _ in range(50):
        crop = crops.AUGMENTATIONS[name](*shape, FRAMING, RNG.random(crops.DRAWS))
        assert crops.render(np.full((*shape, 3), 77, np.uint8), crop, 24).shape == (24, 24, 3)


def test_decoding_leaves_what_the_largest_scale_needs():
    assert crops.min_side("scale", FRAMING) == 50
    assert crops.min_side("centre", FRAMING) == 28
    assert crops.min_side("random_resized_crop", FRAMING) is None
