"""Batches are a pure function of seed and step, cover each epoch exactly, and are normalised."""

import jax
import numpy as np
import pytest

from resnet_jax.data import device_dataset
from resnet_jax.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 6, 5, 3), np.uint8)
LABELS = np.arange(11, dtype=np.int32)


def make(mean="none", std="none"):
    return device_dataset.DeviceDataset(
        IMAGES, LABELS, device_dataset.normalization(IMAGES, mean, std)
    )


def take(data, indices, windows=None):
    indices = np.asarray(indices)
    return device_dataset.take(data, indices, windows or device_dataset.whole(len(indices)))


def windows(top, left, flip):
    return device_dataset.Windows(*(np.array([value]) for value in (top, left, flip)))


@pytest.mark.parametrize("batch_size", [3, 11, 25])
def test_no_example_is_dropped_or_repeated_within_an_epoch(batch_size):
    steps = 3 * 11 * 5
    stream = np.concatenate(
        [device_dataset.batch_indices(7, step, batch_size, 11) for step in range(steps)]
    )
    for epoch in stream[: len(stream) // 11 * 11].reshape(-1, 11):
        assert sorted(epoch) == list(range(11))


def test_epochs_and_seeds_have_orders_of_their_own():
    order = lambda seed, epoch: tuple(device_dataset.batch_indices(seed, epoch, 11, 11))
    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_batch_depends_on_seed_and_step_alone():
    first = device_dataset.batch_indices(5, 123, 8, 11)
    device_dataset.batch_indices(5, 999, 8, 11)
    device_dataset._epoch_order.cache_clear()
    np.testing.assert_array_equal(device_dataset.batch_indices(5, 123, 8, 11), first)


def test_order_is_the_same_on_every_machine():
    first = device_dataset.batch_indices(0, 0, 8, 1000).tolist()
    assert first == [998, 162, 670, 664, 185, 322, 431, 318]


def test_whole_windows_give_the_images_themselves():
    images, labels = take(make(), [3, 0])
    np.testing.assert_allclose(images, IMAGES[[3, 0]] / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, [3, 0])


@pytest.mark.parametrize("top", [-2, 0, 1])
@pytest.mark.parametrize("left", [-1, 0, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_window_is_a_crop_of_the_normalised_and_then_padded_image(top, left, flip):
    images, _ = take(make("pixel", "channel"), [4], windows(top, left, flip))
    mean, std = device_dataset.normalization(IMAGES, "pixel", "channel")
    padded = np.pad((IMAGES[4] / 255 - mean) / std, ((2, 2), (2, 2), (0, 0)))
    crop = padded[2 + top : 8 + top, 2 + left : 7 + left]
    np.testing.assert_allclose(images[0], crop[:, ::-1] if flip else crop, atol=1e-5)


def test_statistics_are_those_of_the_training_images():
    scaled = IMAGES / 255
    mean, std = device_dataset.normalization(IMAGES, "pixel", "channel")
    np.testing.assert_allclose(mean, scaled.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), atol=1e-6)
    mean, std = device_dataset.normalization(IMAGES, "channel", "none")
    np.testing.assert_allclose(mean[2, 3], scaled.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_array_equal(std, 1)


def test_named_constants_depend_on_no_image():
    mean, std = device_dataset.normalization(IMAGES, "imagenet", "imagenet")
    np.testing.assert_allclose(mean, np.broadcast_to([0.485, 0.456, 0.406], (6, 5, 3)), atol=1e-7)
    np.testing.assert_allclose(std, [0.229, 0.224, 0.225], atol=1e-7)
    mean, std = device_dataset.normalization(IMAGES, "imagenet", "none")
    np.testing.assert_array_equal(std, 1)


@pytest.mark.parametrize("statistics", [("imagenet", "none"), ("none", "imagenet")])
def test_constants_of_colours_are_refused_for_grey_images(statistics):
    with pytest.raises(InputError, match=r"(mean|std)='imagenet'.*images have 1 channel"):
        device_dataset.normalization(IMAGES[..., :1], *statistics)


def test_unknown_statistics_are_refused():
    with pytest.raises(InputError, match=r"mean=.pixels..*nearest: pixel"):
        device_dataset.normalization(IMAGES, "pixels")


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_evaluation_covers_every_example_exactly_once(batch_size):
    batches = list(device_dataset.evaluation_batches(11, batch_size))
    assert all(len(indices) == len(mask) == batch_size for indices, mask in batches)
    seen = np.concatenate([indices[mask] for indices, mask in batches])
    np.testing.assert_array_equal(seen, np.arange(11))


def test_crops_reach_every_offset_and_flips_half_of_the_images():
    drawn = device_dataset.crop_and_flip(jax.random.key(0), 2000, padding=2, flip=True)
    for corner in (drawn.top, drawn.left):
        offsets, counts = np.unique(corner, return_counts=True)
        assert offsets.tolist() == [-2, -1, 0, 1, 2]
        assert counts.min() > 300
    assert 0.45 < drawn.flip.mean() < 0.55


def test_images_without_augmentation_are_not_flipped_or_moved():
    drawn = device_dataset.crop_and_flip(jax.random.key(0), 100, padding=0, flip=False)
    assert not drawn.top.any()
    assert not drawn.left.any()
    assert not drawn.flip.any()
