"""What `datasets.load` promises about folders of pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import datasets, image_folder
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


# --- what is found, and what is left out


def test_what_is_left_out_is_counted_with_its_reason(tree: Path):
    make_picture(tree / "train" / "cat" / "more" / "0.png", (0, 0, 0))
    make_picture(tree / "train" / "cat" / "more" / "deep" / "1.jpg", (0, 0, 0))
    make_picture(tree / "train" / "dog" / "moving.gif", (0, 0, 0))
    (tree / "test" / "cat" / "._0.jpg").write_bytes(b"macOS")
    (tree / "test" / "cat" / "notes.txt").write_text("nothing that was meant to be an image")
    info = datasets.describe("image_folder", data_dir=str(tree), image_size=4)
    assert info.num_examples == {"train": 20, "test": 4}
    assert info.left_out == (
        "1 hidden (such as macOS's ._*), 2 in folders within a class folder, "
        "1 of type .gif (read are .png, .jpg, .jpeg, .webp)"
    )
    assert len(datasets.load("image_folder", "all", data_dir=str(tree), image_size=4).labels) == 24


def left_out(tree: Path) -> str:
    return datasets.describe("image_folder", data_dir=str(tree), image_size=4).left_out


def test_images_beside_the_class_folders_are_counted(tree: Path):
    assert left_out(tree) == ""
    make_picture(tree / "train" / "stray.png", (0, 0, 0))
    make_picture(tree / "train" / "moving.gif", (0, 0, 0))
    make_picture(tree / "test" / "0.jpg", (0, 0, 0))
    (tree / "train" / "labels.csv").write_text("no image")
    assert left_out(tree) == (
        "1 directly in test/, not in a class folder, 1 directly in train/, not in a class folder, "
        "1 of type .gif (read are .png, .jpg, .jpeg, .webp)"
    )


@pytest.mark.parametrize("ending", ["ppm", "pgm", "pbm", "heif", "jpe", "jxl", "tga", "TIF"])
def test_images_of_other_formats_are_counted(tree: Path, ending: str):
    (tree / "train" / "cat" / f"x.{ending}").write_bytes(b"an image")
    assert left_out(tree).startswith(f"1 of type .{ending.lower()} (read are ")


@pytest.mark.parametrize("folder", ["valid", "Validation", "test2"])
def test_folder_that_looks_like_a_split_is_told(tree: Path, folder: str):
    make_picture(tree / folder / "cat" / "0.png", (0, 0, 0))
    make_picture(tree / folder / "dog" / "1.bmp", (0, 0, 0))
    if (tree / folder.lower()).exists() and folder != folder.lower():
        pytest.skip("this file system takes Validation/ for validation/")
    assert (
        left_out(tree) == f"2 in {folder}/, no split (read are train/, validation/ or val/, test/)"
    )


def test_other_folders_beside_the_splits_are_passed_over(tree: Path):
    make_picture(tree / "figures" / "0.png", (0, 0, 0))
    make_picture(tree / ".cache" / "cat" / "0.png", (0, 0, 0))
    (tree / "val").symlink_to(tree / "test")
    (tree / "holdout").symlink_to(tree / "test")
    (tree / "empty" / "cat").mkdir(parents=True)
    assert left_out(tree) == ""


def test_classes_without_an_image_to_test_on_are_named(tree: Path):
    make_picture(tree / "train" / "horse" / "0.png", (0, 0, 0))
    make_picture(tree / "val" / "cat" / "0.png", (0, 0, 0))
    assert left_out(tree) == (
        "nothing; no validation images of: dog, horse; no test images of: horse"
    )
    make_picture(tree / "test" / "stray.png", (0, 0, 0))
    assert left_out(tree).startswith("1 directly in test/, not in a class folder; no validation ")


def test_long_list_of_classes_without_an_image_is_cut(tree: Path):
    for i in range(25):
        make_picture(tree / "train" / f"horse{i:02}" / "0.png", (0, 0, 0))
    assert left_out(tree).endswith(" horse18, horse19 and 5 more")


def test_class_whose_images_all_lie_deeper_is_told_so(tree: Path):
    for path in (tree / "train" / "cat").iterdir():
        (tree / "train" / "cat" / "sub").mkdir(exist_ok=True)
        path.rename(tree / "train" / "cat" / "sub" / path.name)
        break
    for path in (tree / "train" / "cat").glob("*.png"):
        path.unlink()
    assert "no images" in refused(tree)
    assert "there is 1 in folders within a class folder" in refused(tree)


def test_single_class_is_refused(tmp_path: Path):
    make_picture(tmp_path / "train" / "cat" / "0.png", (1, 2, 3))
    assert "a single class, 'cat'" in refused(tmp_path)


def test_broken_images_are_named_all_at_once(tree: Path):
    for name in ("cat/3.png", "dog/7.png"):
        (tree / "train" / name).write_bytes(b"no image")
    message = refused(tree)
    assert message.startswith("2 broken: ")
    assert "cat/3.png" in message
    assert "dog/7.png" in message


def test_long_list_of_broken_images_is_cut(tree: Path):
    for i in range(25):
        (tree / "train" / "dog" / f"x{i}.png").write_bytes(b"no image")
    message = refused(tree)
    assert message.startswith("25 broken: ")
    assert message.endswith("; and 5 more")


def test_val_is_a_validation_split_too(tree: Path):
    make_picture(tree / "val" / "dog" / "0.jpg", (1, 2, 3))
    validation = datasets.load("image_folder", "validation", data_dir=str(tree), image_size=4)
    assert validation.labels.tolist() == [1]


def test_val_beside_validation_is_refused(tree: Path):
    for folder in ("val", "validation"):
        make_picture(tree / folder / "dog" / "0.jpg", (1, 2, 3))
    assert "has validation/ and val/, both for the validation split" in refused(tree)


def test_tree_without_a_test_split_is_told_how_to_hold_one_out(tree: Path):
    (tree / "test").rename(tree / "elsewhere")
    message = refused(tree, split="test")
    assert "dataset.train='train[:80%]', dataset.test='train[80%:]'" in message


def test_tree_without_a_validation_split_is_told_of_its_test_split_first(tree: Path):
    message = refused(tree, split="validation")
    assert message.endswith(
        "; there is train (20), test (4); to report on test: dataset.test='test'; "
        "to hold some out: dataset.train='train[:80%]', dataset.validation='train[80%:]'"
    )
    (tree / "test").rename(tree / "elsewhere")
    assert "dataset.test='test'" not in refused(tree, split="validation")


def test_images_larger_than_memory_are_refused_before_they_are_read(tree: Path):
    message = refused(tree, image_size=1_000_000)
    assert "20 images of 1000000×1000000 take 60,000 GB" in message


@pytest.mark.parametrize("padding", [4, 100])
def test_padding_in_which_an_image_is_lost_is_refused(tree: Path, padding: int):
    asked = {"data_dir": str(tree), "image_size": 4}
    with pytest.raises(InputError, match=r"images are 4×4 pixels, .* give less than 4"):
        datasets.check("image_folder", ["train"], **asked, padding=padding)
    datasets.check("image_folder", ["train"], **asked, padding=3)


def test_orientation_is_applied_if_asked(tree: Path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 250  # the upper half, which is the right one when turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tree / "test" / "cat" / "0.png"
    Image.fromarray(pixels).save(path, exif=exif)
    args = {"data_dir": str(tree), "image_size": 8}
    stored = datasets.load("image_folder", "test", **args)
    turned = datasets.load("image_folder", "test", **args, upright=True)
    index = int(np.argmax([image.max() for image in stored.images]))
    np.testing.assert_array_equal(stored.images[index], pixels)
    np.testing.assert_array_equal(turned.images[index], np.rot90(pixels, -1))


def test_hidden_folders_are_not_searched(tmp_path: Path):
    root = tmp_path / ".home" / "holiday"  # which may lie in a hidden one, if it is asked for
    for name in ("b.png", "sub/a.JPG", ".ipynb_checkpoints/b.png", "sub/.thumbs/x/a.jpg"):
        make_picture(root / name, (0, 0, 0))
    assert image_folder.find([root]) == [root / "b.png", root / "sub" / "a.JPG"]


def test_folder_of_other_formats_alone_is_told_which(tmp_path: Path):
    for name in ("a.gif", "sub/b.GIF", "c.bmp", ".hidden/d.tga", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (found,) = image_folder.find([tmp_path])
    with pytest.raises(
        InputError, match=r"no images in it \(read are .*\); there is 1 \.bmp, 2 \.gif$"
    ):
        image_folder.read_file(found)
