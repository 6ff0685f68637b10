"""What a study gets of a network: its images, without its whole data set."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import digits, imagenet
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe
from resnet_jax.runs.folder import write_config
from resnet_jax.studies import networks


class Photographs:
    """Many records, of which each that is read is counted."""

    class_names = ("cat", "dog")

    def __init__(self):
        self.read = []

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        self.read.append(index)
        file = io.BytesIO()
        Image.new("RGB", (40, 30), (int(index) % 256, 0, 0)).save(file, "PNG")
        return EncodedImage(file.getvalue(), int(index) % 2, str(index))


def test_streamed_run_reads_only_the_images_that_are_asked_for(monkeypatch):
    source = Photographs()
    monkeypatch.setattr(networks.datasets, "open_records", lambda *_: source)
    config = imagenet.get_config()
    config.dataset.image_size, config.dataset.mean, config.dataset.std = 16, "imagenet", "imagenet"
    config.streaming.scales, config.streaming.shorter_side = (20, 24), 20
    network = networks.Network(Recipe.from_config(config), None, "resnet-50")
    images, labels = network.images("train", 4)
    assert images.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1])
    assert network.model.num_classes == 2
    assert len(source.read) <= 5  # one more for the normalisation, which is constant


def test_untrained_network_has_no_later_weights():
    network = networks.Network(Recipe.from_config(digits.get_config("plain-8")), None, "plain-8")
    with pytest.raises(InputError, match="step=5: plain-8 is not trained"):
        network.at(5)


def test_folder_of_runs_stands_for_those_that_are_finished(tmp_path: Path):
    for seed in range(3):
        folder = tmp_path / f"plain-8-seed{seed}"
        folder.mkdir()
        recipe = Recipe.from_config(digits.get_config(f"plain-8,seed={seed}"))
        write_config(folder, recipe.to_dict(), devices="cpu")
        if seed < 2:
            (folder / "summary.json").write_text('{"status": "completed", "train_error": 0}')
    found = networks.collect([str(tmp_path)])
    assert [(each.label, each.recipe.seed) for each in found] == [("plain-8", 0), ("plain-8", 1)]
    assert [each.path for each in networks.collect([str(found[0].path)])] == [found[0].path]
    with pytest.raises(InputError, match="no run in this folder"):
        networks.collect([str(tmp_path / "plain-8-seed0" / "nothing")])
