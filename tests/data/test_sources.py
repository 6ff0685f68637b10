"""What `sources.load` promises about digits, folders of pictures and TFDS sets."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resnet_jax.data import sources, tfds_sets
from resnet_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "imagenet-sample"


def make_picture(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten train and two test pictures of each of two classes; a picture's red tells which."""
    for split, count in (("train", 10), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                make_picture(tmp_path / split / name / f"{i}.png", (100 * label + i, 50, 0))
    return tmp_path


# --- digits


def test_digits_are_grey_bytes_with_every_fifth_in_test():
    train, test = sources.load("digits", "train"), sources.load("digits", "test")
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 8, 8, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.class_names == tuple("0123456789")


def test_digits_equal_sklearns_rescaled():
    from sklearn import datasets

    expected = datasets.load_digits()
    test = sources.load("digits", "test")
    np.testing.assert_array_equal(test.labels, expected.target[4::5])
    np.testing.assert_allclose(test.images[..., 0] * (16 / 255), expected.images[4::5], atol=0.04)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:1000]", slice(0, 1000)),
        ("train[1000:]", slice(1000, None)),
        ("train[-5:]", slice(-5, None)),
        ("train[:50%]", slice(0, 719)),
        ("train[50%:]", slice(719, None)),
    ],
)
def test_slices_are_tfdss(split: str, expected: slice):
    whole = sources.load("digits", "train")
    part = sources.load("digits", split)
    np.testing.assert_array_equal(part.images, whole.images[expected])
    np.testing.assert_array_equal(part.labels, whole.labels[expected])


def test_sum_of_splits_is_their_concatenation():
    parts = [sources.load("digits", split) for split in ("test", "train[:7]")]
    both = sources.load("digits", "test+train[:7]")
    np.testing.assert_array_equal(both.images, np.concatenate([part.images for part in parts]))
    assert len(sources.load("digits", "all").labels) == 1797


@pytest.mark.parametrize(
    "split",
    [
        *("trian", "validation", "", "train[", "train[a:]", "train[1.5:]", "train[:120%]"),
        *("train[:1439]", "train[5:5]", "train[9:3]", "train[1438:]", "train[7]", "all[:5]"),
    ],
)
def test_wrong_split_is_one_line_that_says_what_there_is(split: str):
    with pytest.raises(InputError, match=r"train \(1,438\), test \(359\)") as caught:
        sources.check("digits", [split], data_dir=None, image_size=None)
    assert "\n" not in str(caught.value)
    assert repr(split) in str(caught.value)


# --- names


def test_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"nearest: cifar10$"):
        sources.check("cifar11", ["train"], data_dir=None, image_size=None)


@pytest.mark.parametrize("name", ["", "../up", "a:b:c", "cifar10/none:0.0.1"])
def test_malformed_name_is_refused(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="dataset="):
        sources.check(name, ["train"], data_dir=str(tmp_path), image_size=None)


def test_tfds_set_that_is_not_prepared_is_said_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"not found .*array_record"):
        sources.check("imagenet2012", ["train"], data_dir=str(tmp_path), image_size=None)


def test_set_to_be_downloaded_is_checked_before(tmp_path: Path):
    data_dir = str(tmp_path)
    sources.check("cifar10", ["train[:45000]", "test"], data_dir=data_dir, image_size=32)
    with pytest.raises(InputError, match=r"train \(50,000\), test \(10,000\)"):
        sources.check("cifar10", ["train[:50001]"], data_dir=data_dir, image_size=None)
    with pytest.raises(InputError, match="image_size=30: cifar10 has 32×32"):
        sources.check("cifar10", ["train"], data_dir=data_dir, image_size=30)
    assert not list(tmp_path.iterdir())


def test_all_names_are_accepted_but_a_folder_that_is_not_given(tmp_path: Path):
    asked = {"data_dir": str(tmp_path), "image_size": None}
    refused = {name: refusal(name, ["train", "test"], asked) for name in tfds_sets.names()}
    assert {name for name, reason in refused.items() if reason} == {"image_folder"}


def refusal(name: str, splits: list[str], asked: dict) -> str:
    """Why `sources.check` will not have it; nothing where it will."""
    try:
        sources.check(name, splits, **asked)
    except InputError as error:
        return str(error)
    return ""


def test_check_imports_neither_jax_nor_tensorflow_and_is_quick(tmp_path: Path):
    program = (
        "import sys\n"
        "from resnet_jax.data import sources\n"
        f"sources.check('cifar10', ['train'], data_dir={str(tmp_path)!r}, image_size=None)\n"
        "assert not {'jax', 'tensorflow', 'sklearn'} & set(sys.modules)\n"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    # Half a second on an idle machine.
    assert time.monotonic() - start < 5


# --- image_folder


def test_folder_gives_every_picture_with_its_class(tree: Path):
    train = sources.load("image_folder", "train", data_dir=str(tree), image_size=16)
    assert train.images.shape == (20, 16, 16, 3)
    assert train.class_names == ("cat", "dog")
    red = train.images[:, 8, 8, 0].astype(int)
    np.testing.assert_array_equal(red // 100, train.labels)
    assert sorted(red) == [*range(10), *range(100, 110)]


def test_folder_order_is_mixed_and_repeats(tree: Path):
    first, again = (
        sources.load("image_folder", "train", data_dir=str(tree), image_size=4) for _ in range(2)
    )
    np.testing.assert_array_equal(first.images, again.images)
    assert set(first.labels[:8]) == {0, 1}
    # The order is part of what a seed stands for, so it must not change between versions.
    red = first.images[:, 0, 0, 0]
    assert red[:6].tolist() == [0, 2, 101, 107, 9, 1]


def test_folder_slices_partition_the_split(tree: Path):
    args = {"data_dir": str(tree), "image_size": 4}
    parts = [sources.load("image_folder", f"train[{part}]", **args) for part in (":75%", "75%:")]
    whole = sources.load("image_folder", "train", **args)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)


def test_shorter_side_is_resized_and_the_centre_cropped(tmp_path: Path):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "wide.png")
    train = sources.load("image_folder", "train", data_dir=str(tmp_path), image_size=20)
    assert (train.images[0, :, 1:-1] == 200).all()


def test_picture_of_the_wanted_size_is_unchanged(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / "noise.png")
    train = sources.load("image_folder", "train", data_dir=str(tmp_path), image_size=32)
    np.testing.assert_array_equal(train.images[0], pixels)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *((mode, ".png") for mode in ("1", "L", "LA", "P", "RGBA")),
        *((mode, ".jpg") for mode in ("L", "CMYK")),
        *((mode, ".webp") for mode in ("RGB", "RGBA")),
        *(("RGB", suffix) for suffix in (".jpeg", ".PNG")),
    ],
)
def test_other_modes_and_formats_become_rgb(mode: str, suffix: str, tmp_path: Path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(folder / f"x{suffix}")
    train = sources.load("image_folder", "train", data_dir=str(tmp_path), image_size=3)
    assert (train.images >= 250).all()


def test_validation_folder_is_a_split(tree: Path):
    make_picture(tree / "validation" / "cat" / "0.jpg", (1, 2, 3))
    validation = sources.load("image_folder", "validation", data_dir=str(tree), image_size=4)
    assert validation.labels.tolist() == [0]


def test_files_that_are_no_pictures_are_passed_over(tree: Path):
    (tree / "train" / "cat" / "notes.txt").write_text("not a picture")
    (tree / "train" / ".cache").mkdir()
    train = sources.load("image_folder", "train", data_dir=str(tree), image_size=4)
    assert len(train.labels) == 20


def refused(tree: Path, image_size: int | None = 4, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        sources.load("image_folder", split, data_dir=str(tree), image_size=image_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truncated_picture_is_named(tree: Path):
    broken = tree / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    assert str(broken) in refused(tree)


def test_truncated_jpeg_is_named(tree: Path):
    broken = tree / "train" / "dog" / "photo.jpg"
    make_picture(broken, (9, 9, 9), (200, 200))
    broken.write_bytes(broken.read_bytes()[:-300])
    assert str(broken) in refused(tree)


def test_text_named_like_a_picture_is_named(tree: Path):
    broken = tree / "train" / "cat" / "text.webp"
    broken.write_text("hello")
    assert str(broken) in refused(tree)


def test_sixteen_bit_picture_is_named(tree: Path):
    deep = tree / "train" / "cat" / "deep.png"
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(deep)
    assert "8 bits" in refused(tree)


def test_class_only_in_test_is_named(tree: Path):
    make_picture(tree / "test" / "horse" / "0.png", (0, 0, 0))
    assert "horse: not a class; classes are cat, dog" in refused(tree)


def test_empty_trees_are_refused(tmp_path: Path):
    assert "train: no such folder" in refused(tmp_path)
    (tmp_path / "train").mkdir()
    assert "no class folders" in refused(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    assert "cat: no pictures" in refused(tmp_path)


def test_folder_name_that_is_not_utf8_is_refused(tree: Path):
    try:
        (tree / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert r"caf\xe9" in refused(tree)


def test_folder_needs_a_size_and_a_place(tree: Path):
    assert "image_size=None" in refused(tree, image_size=None)
    assert "image_size=0" in refused(tree, image_size=0)
    with pytest.raises(InputError, match="data_dir=None"):
        sources.check("image_folder", ["train"], data_dir=None, image_size=4)
    assert "train (20), test (4)" in refused(tree, split="validation")


def test_real_photographs_are_read(tmp_path: Path):
    photographs = sorted(SAMPLE.glob("*.JPEG"))[:4]
    if not photographs:
        pytest.skip(f"needs {SAMPLE}")
    for photograph in photographs:
        target = tmp_path / "train" / photograph.stem / "0.jpeg"
        target.parent.mkdir(parents=True)
        target.write_bytes(photograph.read_bytes())
    train = sources.load("image_folder", "train", data_dir=str(tmp_path), image_size=64)
    assert train.images.shape == (4, 64, 64, 3)
    assert train.images.std() > 20


# --- any TFDS set


def prepare_tfds_set(data_dir: Path, **features: tfds.features.FeatureConnector) -> None:
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
                values = {"image": stream.getvalue(), "label": i % 2, "text": "words"}
                yield i, {key: values[key] for key in features}

    Toy(data_dir=str(data_dir)).download_and_prepare(file_format="array_record")


def test_any_prepared_tfds_set_loads(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    train = sources.load("toy", "train", data_dir=str(tmp_path))
    assert train.images.shape == (6, 4, 5, 3)
    assert train.class_names == ("even", "odd")
    red = train.images[:, 0, 0, 0]
    assert sorted(red) == [0, 40, 80, 120, 160, 200]
    np.testing.assert_array_equal(red // 40 % 2, train.labels)
    part = sources.load("toy:1.0.0", "train[2:4]", data_dir=str(tmp_path))
    np.testing.assert_array_equal(part.images, train.images[2:4])


def test_order_is_that_of_tfds_data_source(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    train = sources.load("toy", "train", data_dir=str(tmp_path))
    stock = tfds.data_source("toy", split="train", data_dir=str(tmp_path))
    np.testing.assert_array_equal(train.images, [example["image"] for example in stock])
    np.testing.assert_array_equal(train.labels, [example["label"] for example in stock])


def test_home_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare_tfds_set(tmp_path / "sets")
    assert len(sources.load("toy", "train", data_dir="~/sets").labels) == 6


def refused_set(data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        sources.check("toy", ["train"], data_dir=str(data_dir), image_size=None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_set_of_varying_sizes_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, image=tfds.features.Image(shape=(None, None, 3)))
    assert "image_folder" in refused_set(tmp_path)


def test_set_without_label_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path, label=tfds.features.Scalar(np.int64), text=tfds.features.Text())
    assert "wanted features image and label" in refused_set(tmp_path)


def test_set_prepared_as_tfrecord_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (folder,) = (tmp_path / "toy").iterdir()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for shard in folder.glob("*array_record*"):
        shard.rename(folder / shard.name.replace("array_record", "tfrecord"))
    assert "prepared as tfrecord, wanted array_record" in refused_set(tmp_path)


def test_label_outside_the_classes_is_refused(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (folder,) = (tmp_path / "toy").iterdir()
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"2"', '"1"'))
    (folder / "label.labels.txt").write_text("even\n")
    with pytest.raises(InputError, match=r"label 1, classes are 0\.\.0"):
        sources.load("toy", "train", data_dir=str(tmp_path))


def test_missing_shard_is_named(tmp_path: Path):
    prepare_tfds_set(tmp_path)
    (shard,) = (tmp_path / "toy" / "1.0.0").glob("*array_record*")
    shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        sources.load("toy", "train", data_dir=str(tmp_path))
