"""The pipelines that the benchmark compares do the same work."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import pipeline
from resnet_jax.data import datasets, folder_to_tfds
from resnet_jax.data.tfds_sets import Records


@pytest.fixture
def opened(tmp_path: Path) -> Records:
    """Six smooth images, of sizes of which crops of 224 pixels enlarge some and shrink others."""
    for i in range(6):
        rows, columns = np.mgrid[: 200 + 60 * i, : 380 - 30 * i]
        pixels = np.stack([rows / 3, columns / 2, (rows + columns) / 5], -1).astype(np.uint8)
        folder = tmp_path / "tree" / "train" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    folder_to_tfds.prepare("smooth", str(tmp_path), str(tmp_path / "tree"))
    return datasets.open_records("smooth", "train", str(tmp_path))


@pytest.mark.torch
def test_all_pipelines_give_the_same_images_in_the_same_order(opened: Records):
    pytest.importorskip("torch")
    made = {name: list(make(opened, 4, 0, 3)) for name, make in pipeline.PIPELINES.items()}
    for images, labels in made["ours"]:
        assert images[0].shape == (4, 224, 224, 3)
        assert set(np.ravel(labels).tolist()) <= {0, 1}
    for name, batches in made.items():
        assert len(batches) == 3
        for batch, expected in zip(batches, made["ours"], strict=True):
            difference = np.asarray(batch[0]).astype(int) - expected[0][0]
            assert np.abs(difference).max() <= 4, name
            np.testing.assert_array_equal(np.ravel(batch[1]), np.ravel(expected[1]), name)


def test_every_stage_is_timed(opened: Records):
    taken = pipeline.stages(opened, 4, rounds=2)
    assert list(taken) == ["read", "decode", "augment", "batch", "transfer"]
    assert all(len(spent) == 2 for spent in taken.values())
    assert min(taken["decode"]) > 0


def test_rate_tells_median_and_range():
    text = str(pipeline.Rate("ours", 2, [90.0, 300.0, 110.0]))
    assert "110 images/s" in text
    assert "(90 to 300), 55 a worker" in text
