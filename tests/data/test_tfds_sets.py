"""What `datasets.load` promises about TFDS sets of any name."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resnet_jax.data import datasets
from resnet_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "imagenet-sample"


def prepare_tfds_set(
    data_dir: Path,
    size_in_bytes: int | None = None,
    **features: tfds.features.FeatureConnector,
) -> None:
    """Prepares `toy/1.0.0`, six 4×5 images that get redder, as a set TFDS has no code for."""
    features = {
        "image": tfds.features.Image(shape=(4, 5, 3)),
        "label": tfds.features.ClassLabel(names=["even", "odd"]),
    } | features

    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "toy"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_dict)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(6):
                stream = io.BytesIO()
                Image.new("RGB", (5, 4), (40 * i, 0, 0)).save(stream, "PNG")
                values = {
                    "image": stream.getvalue()[:size_in_bytes],
                    "label": i % getattr(features["label"], "num_classes", 2),
                    "text": "words",
                }
                yield i, {key: values[key] for key in features}

    Toy(data_dir=str(data_dir)).download_and_prepare(file_format="array_record")


def test_any_prepared_tfds_set_loads(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    train = datasets.load("toy", "train", data_dir=str(tmp_path))
    assert train.images.shape == (6, 4, 5, 3)
    assert train.class_names == ("even", "odd")
    red = train.images[:, 0, 0, 0]
    assert sorted(red) == [0, 40, 80, 120, 160, 200]
    np.testing.assert_array_equal(red // 40 % 2, train.labels)
    part = datasets.load("toy:1.0.0", "train[2:4]", data_dir=str(tmp_path))
    np.testing.assert_array_equal(part.images, train.images[2:4])


def test_order_is_that_of_tfds_data_source(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    train = datasets.load("toy", "train", data_dir=str(tmp_path))
    stock = tfds.data_source("toy", split="train", data_dir=str(tmp_path))
    np.testing.assert_array_equal(train.images, [example["image"] for example in stock])
    np.testing.assert_array_equal(train.labels, [example["label"] for example in stock])


def test_home_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare_tfds_set(tmp_path / "sets")
    assert len(datasets.load("toy", "train", data_dir="~/sets").labels) == 6


def refused_set(data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        datasets.check("toy", ["train"], data_dir=str(data_dir), image_size=None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_of_any_size_are_fitted_to_squares_or_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, image=tfds.features.Image(shape=(None, None, 3)))
    assert "give dataset.image_size" in refused_set(tmp_path)
    train = datasets.load("toy", "train", data_dir=str(tmp_path), image_size=2)
    assert train.images.shape == (6, 2, 2, 3)
    np.testing.assert_array_equal(train.images[:, 0, 0, 0] // 40 % 2, train.labels)


def test_unreadable_picture_of_any_size_is_named(tmp_path: Path):
    image = tfds.features.Image(shape=(None, None, 3))
    prepare_tfds_set(tmp_path, size_in_bytes=45, image=image)
    with pytest.raises(InputError, match="toy: record 0: unreadable image"):
        datasets.load("toy", "train", data_dir=str(tmp_path), image_size=2)


def test_set_without_label_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, label=tfds.features.Scalar(np.int64), text=tfds.features.Text())
    assert "wanted features image and label" in refused_set(tmp_path)


def test_set_of_one_class_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, label=tfds.features.ClassLabel(names=["all"]))
    assert "a single class; a classifier needs two" in refused_set(tmp_path)


def test_set_prepared_as_tfrecord_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (folder,) = (tmp_path / "toy").iterdir()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for shard in folder.glob("*array_record*"):
        shard.rename(folder / shard.name.replace("array_record", "tfrecord"))
    assert "prepared as tfrecord, wanted array_record" in refused_set(tmp_path)


def test_label_outside_the_classes_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, label=tfds.features.ClassLabel(names=["a", "b", "c"]))
    (folder,) = (tmp_path / "toy").iterdir()
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"3"', '"2"'))
    (folder / "label.labels.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"label 2, classes are 0\.\.1"):
        datasets.load("toy", "train", data_dir=str(tmp_path))


def test_missing_shard_is_named(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (shard,) = (tmp_path / "toy" / "1.0.0").glob("*array_record*")
    shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        datasets.load("toy", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize("kept", [0, 0.3, 0.9, 0.999])
def test_shard_that_breaks_off_is_named(tmp_path: Path, kept: float):
    prepare_tfds_set(tmp_path)
    (shard,) = (tmp_path / "toy" / "1.0.0").glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[: int(kept * shard.stat().st_size)])
    for read in (
        lambda: datasets.load("toy", "train", data_dir=str(tmp_path)),
        lambda: datasets.open_records("toy", "train", str(tmp_path))[0],
    ):
        with pytest.raises(InputError, match=f"{shard.name}: truncated or damaged") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_damaged_record_is_refused_in_one_line(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (shard,) = (tmp_path / "toy" / "1.0.0").glob("*array_record*")
    data = bytearray(shard.read_bytes())
    # The records lie between the blocks' headers and the footer.
    start = data.index(b"PNG")
    data[start : start + 40] = bytes(40)
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged|unreadable") as caught:
        datasets.load("toy", "train", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    "text", ["", "{", '{"name": 3}', "[]", "\0\0", '{"splits": [{"name": 1}]}']
)
def test_damaged_description_is_refused_in_one_line(tmp_path: Path, file: str, text: str):
    prepare_tfds_set(tmp_path)
    (tmp_path / "toy" / "1.0.0" / file).write_text(text)
    assert "toy" in refused_set(tmp_path)


def test_data_dir_that_is_a_data_set_is_refused_with_the_right_path(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    for part in ("toy", "toy/1.0.0"):
        with pytest.raises(InputError, match=f"wanted {tmp_path}$"):
            datasets.check("mnist", ["train"], data_dir=str(tmp_path / part), image_size=None)


@pytest.mark.parametrize("place", ["train/cat", "."])
def test_data_dir_that_holds_images_is_refused_before_any_download(tmp_path: Path, place: str):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(tmp_path / place / "0.png")
    with pytest.raises(InputError, match=r"holds images.*dataset\.name='image_folder'"):
        datasets.check("cifar10", ["train"], data_dir=str(tmp_path), image_size=None)
