"""What `datasets.load` and `datasets.check` promise about digits, slices and names."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data import datasets, tfds_sets
from resnet_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "imagenet-sample"


# --- digits


def test_digits_are_grey_bytes_with_every_fifth_in_test():
    train, test = datasets.load("digits", "train"), datasets.load("digits", "test")
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 8, 8, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.class_names == tuple("0123456789")


def test_digits_equal_sklearns_rescaled():
    from sklearn import datasets as sklearn_datasets

    expected = sklearn_datasets.load_digits()
    test = datasets.load("digits", "test")
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
    whole = datasets.load("digits", "train")
    part = datasets.load("digits", split)
    np.testing.assert_array_equal(part.images, whole.images[expected])
    np.testing.assert_array_equal(part.labels, whole.labels[expected])


def test_sum_of_splits_is_their_concatenation():
    parts = [datasets.load("digits", split) for split in ("test", "train[:7]")]
    both = datasets.load("digits", "test+train[:7]")
    np.testing.assert_array_equal(both.images, np.concatenate([part.images for part in parts]))
    assert len(datasets.load("digits", "all").labels) == 1797


@pytest.mark.parametrize(
    "split",
    [
        *("trian", "validation", "", "train[", "train[a:]", "train[1.5:]", "train[:120%]"),
        *("train[:1439]", "train[5:5]", "train[9:3]", "train[1438:]", "train[7]", "all[:5]"),
    ],
)
def test_wrong_split_is_one_line_that_says_what_there_is(split: str):
    with pytest.raises(InputError, match=r"train \(1,438\), test \(359\)") as caught:
        datasets.check("digits", [split], data_dir=None, image_size=None)
    assert "\n" not in str(caught.value)
    assert repr(split) in str(caught.value)


# --- names


def test_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"nearest: cifar10$"):
        datasets.check("cifar11", ["train"], data_dir=None, image_size=None)


@pytest.mark.parametrize("name", ["", "../up", "a:b:c", "cifar10/none:0.0.1"])
def test_malformed_name_is_refused(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="dataset="):
        datasets.check(name, ["train"], data_dir=str(tmp_path), image_size=None)


def test_tfds_set_that_is_not_prepared_is_said_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"not found .*array_record"):
        datasets.check("imagenet2012", ["train"], data_dir=str(tmp_path), image_size=None)


def test_set_to_be_downloaded_is_checked_before(tmp_path: Path):
    data_dir = str(tmp_path)
    datasets.check("cifar10", ["train[:45000]", "test"], data_dir=data_dir, image_size=32)
    with pytest.raises(InputError, match=r"train \(50,000\), test \(10,000\)"):
        datasets.check("cifar10", ["train[:50001]"], data_dir=data_dir, image_size=None)
    with pytest.raises(InputError, match="image_size=30: cifar10 has 32×32"):
        datasets.check("cifar10", ["train"], data_dir=data_dir, image_size=30)
    assert not list(tmp_path.iterdir())


def test_names_are_accepted_with_a_folder_unless_they_have_none_or_lack_its_images(tmp_path: Path):
    asked = {"data_dir": str(tmp_path), "image_size": None}
    refused = {name: refusal(name, ["train", "test"], asked) for name in tfds_sets.names()}
    assert {name for name, reason in refused.items() if reason} == {"digits", "image_folder"}


def refusal(name: str, splits: list[str], asked: dict) -> str:
    """Why `datasets.check` will not have it; nothing where it will."""
    try:
        datasets.check(name, splits, **asked)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("used", "shared"),
    [
        (["train", "test", "test"], "359 examples are in 'test' and again in 'test'"),
        (["train", "train[90%:]", "test"], "144 examples are in 'train' and again in 'train"),
        (["train", "train"], "1,438 examples"),
        (["train[:50%]+train[25%:75%]", "test"], "359 examples"),
        (["train+test", "test"], "359 examples"),
    ],
)
def test_examples_are_used_once(used: list[str], shared: str):
    with pytest.raises(InputError, match=re.escape(shared)):
        datasets.check("digits", used, data_dir=None, image_size=None)
    datasets.check("digits", ["train[:90%]", "train[90%:]", "test"], data_dir=None, image_size=None)


def test_check_imports_neither_jax_nor_tensorflow(tmp_path: Path):
    program = (
        "import sys\n"
        "from resnet_jax.data import datasets\n"
        f"datasets.check('cifar10', ['train'], data_dir={str(tmp_path)!r}, image_size=None)\n"
        "assert not {'jax', 'tensorflow', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
