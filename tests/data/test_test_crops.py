"""Views cut what the papers say, from the picture's own pixels."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.image_ops import TEST_CROPS, cut, resize

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)


def resized(width: int, height: int) -> np.ndarray:
    image = Image.fromarray(PICTURE).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def test_centre_is_224_of_a_shorter_side_of_256():
    (crop,) = cut(PICTURE, TEST_CROPS["centre"], 224)
    np.testing.assert_array_equal(crop, resized(341, 256)[16:240, 58:282])


def test_ten_crops_are_corners_and_centre_and_their_mirror_images():
    crops = cut(PICTURE, TEST_CROPS["10-crop"], 224)
    whole = resized(341, 256)
    expected = [
        whole[16:240, 58:282], whole[:224, :224], whole[:224, -224:], whole[-224:, :224],
        whole[-224:, -224:],
    ]  # fmt: skip
    assert len(crops) == 10
    for crop, mirrored, wanted in zip(crops[:5], crops[5:], expected, strict=True):
        np.testing.assert_array_equal(crop, wanted)
        np.testing.assert_array_equal(mirrored, wanted[:, ::-1])


def test_multi_scale_sees_whole_pictures_of_five_sizes_each_from_the_original():
    crops = cut(PICTURE, TEST_CROPS["multi-scale"], 224)
    assert [crop.shape[:2] for crop in crops[:5]] == [
        (224, 299), (256, 341), (384, 512), (480, 640), (640, 853),
    ]  # fmt: skip
    np.testing.assert_array_equal(crops[3], resized(640, 480))
    np.testing.assert_array_equal(crops[8], resized(640, 480)[:, ::-1])


def test_single_320_is_the_middle_of_a_shorter_side_of_320():
    (crop,) = cut(PICTURE, TEST_CROPS["single-320"], 224)
    np.testing.assert_array_equal(crop, resized(427, 320)[:, 53:373])


def test_sizes_are_in_proportion_for_nets_trained_on_others():
    assert cut(PICTURE, TEST_CROPS["centre"], 112)[0].shape == (112, 112, 3)
    assert [c.shape[0] for c in cut(PICTURE, TEST_CROPS["multi-scale"], 56)[:5]] == [
        56, 64, 96, 120, 160,
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 500), (500, 3), (7, 7), (33, 32)])
def test_every_shape_has_every_view(shape):
    picture = np.zeros((*shape, 3), np.uint8)
    for view in TEST_CROPS.values():
        assert all(min(crop.shape[:2]) >= 32 for crop in cut(picture, view, 32))


def test_grey_pictures_stay_grey():
    assert resize(PICTURE[..., :1], 30).shape == (30, 40, 1)
