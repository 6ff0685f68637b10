"""What a study gets of a network: its images, without its whole data set."""

import io

import numpy as np
from PIL import Image

from configs import imagenet
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.runs import Recipe
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
