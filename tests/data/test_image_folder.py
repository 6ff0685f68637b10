"""What `datasets.load` promises about folders of pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import datasets
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


def test_folder_gives_every_picture_with_its_class(tree: Path):
    train = datasets.load("image_folder", "train", data_dir=str(tree), image_size=16)
    assert train.images.shape == (20, 16, 16, 3)
    assert train.class_names == ("cat", "dog")
    red = train.images[:, 8, 8, 0].astype(int)
    np.testing.assert_array_equal(red // 100, train.labels)
    assert sorted(red) == [*range(10), *range(100, 110)]


def test_folder_order_is_mixed_and_repeats(tree: Path):
    first, again = (
        datasets.load("image_folder", "train", data_dir=str(tree), image_size=4) for _ in range(2)
    )
    np.testing.assert_array_equal(first.images, again.images)
    assert set(first.labels[:8]) == {0, 1}
    # The order is part of what a seed stands for, so it must not change between versions.
    red = first.images[:, 0, 0, 0]
    assert red[:6].tolist() == [0, 2, 101, 107, 9, 1]


def test_folder_slices_partition_the_split(tree: Path):
    args = {"data_dir": str(tree), "image_size": 4}
    parts = [datasets.load("image_folder", f"train[{part}]", **args) for part in (":75%", "75%:")]
    whole = datasets.load("image_folder", "train", **args)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)


def test_shorter_side_is_resized_and_the_centre_cropped(tmp_path: Path):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    make_picture(tmp_path / "train" / "b" / "0.png", (0, 0, 0))
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "wide.png")
    train = datasets.load("image_folder", "train", data_dir=str(tmp_path), image_size=20)
    assert (train.images[train.labels == 0, :, 1:-1] == 200).all()


def test_picture_of_the_wanted_size_is_unchanged(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "train" / "a").mkdir(parents=True)
    make_picture(tmp_path / "train" / "b" / "0.png", (0, 0, 0))
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / "noise.png")
    train = datasets.load("image_folder", "train", data_dir=str(tmp_path), image_size=32)
    np.testing.assert_array_equal(train.images[train.labels == 0], [pixels])


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
    make_picture(tmp_path / "train" / "b" / "0.png", (255, 255, 255))
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(folder / f"x{suffix}")
    train = datasets.load("image_folder", "train", data_dir=str(tmp_path), image_size=3)
    assert (train.images >= 250).all()


def test_validation_folder_is_a_split(tree: Path):
    make_picture(tree / "validation" / "cat" / "0.jpg", (1, 2, 3))
    validation = datasets.load("image_folder", "validation", data_dir=str(tree), image_size=4)
    assert validation.labels.tolist() == [0]


def test_files_that_are_no_pictures_are_passed_over(tree: Path):
    (tree / "train" / "cat" / "notes.txt").write_text("not a picture")
    (tree / "train" / ".cache").mkdir()
    train = datasets.load("image_folder", "train", data_dir=str(tree), image_size=4)
    assert len(train.labels) == 20


def refused(tree: Path, image_size: int | None = 4, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        datasets.load("image_folder", split, data_dir=str(tree), image_size=image_size)
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
    (tmp_path / "train" / "dog").mkdir()
    assert "cat: no images" in refused(tmp_path)


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
        datasets.check("image_folder", ["train"], data_dir=None, image_size=4)
    assert "train (20), test (4)" in refused(tree, split="validation")


def test_real_photographs_are_read(tmp_path: Path):
    photographs = sorted(SAMPLE.glob("*.JPEG"))[:4]
    if not photographs:
        pytest.skip(f"needs {SAMPLE}")
    for photograph in photographs:
        target = tmp_path / "train" / photograph.stem / "0.jpeg"
        target.parent.mkdir(parents=True)
        target.write_bytes(photograph.read_bytes())
    train = datasets.load("image_folder", "train", data_dir=str(tmp_path), image_size=64)
    assert train.images.shape == (4, 64, 64, 3)
    assert train.images.std() > 20
