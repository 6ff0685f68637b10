"""Prepares a data set for training, without TensorFlow.

    python -m experiments.prepare_data --dataset=cifar10               # downloads what TFDS does
    python -m experiments.prepare_data --dataset=cifar10 --source=DIR  # from files at hand

DIR holds the original files, packed or unpacked (for CIFAR-10 `cifar-10-binary.tar.gz`, or the
`.bin` files in it), or images in `train/<class>/` and `test/<class>/`. The result is TFDS's own
data set in ArrayRecord, in TFDS's default folder or in --data_dir. CIFAR-10 takes about half a
minute once the files are there.

    python -m experiments.prepare_data --dataset=NAME --source=TREE    # your own images

Under any other NAME the images in TREE's `train/<class>/`, `validation/<class>/` (or `val`) and
`test/<class>/` become a TFDS set of that name, with the files' bytes and names as they are: what
ImageNet-size training streams from. Each is decoded once, to find the broken ones now.
"""

from absl import flags

from experiments.command import run
from resnet_jax.data import raw_readers
from resnet_jax.errors import InputError, check_choice

_DATASET = flags.DEFINE_string("dataset", None, "name of the data set", required=True)
_SOURCE = flags.DEFINE_string("source", None, "folder of original files or images; else download")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder of data sets; else TFDS's default")

_READ_AS_THEY_ARE = {
    "digits": "comes with scikit-learn; train on it with configs/digits.py",
    "image_folder": "is read as it lies; train on it with dataset.name='image_folder' and "
    "dataset.data_dir=TREE, or give --dataset a name of its own to stream it",
}


def main() -> None:
    """Prepares the set unless it is there, and prints where it lies and its split sizes."""
    name, source, data_dir = _DATASET.value, _SOURCE.value, _DATA_DIR.value
    if name in _READ_AS_THEY_ARE:
        raise InputError(f"dataset={name!r}: nothing to prepare: it {_READ_AS_THEY_ARE[name]}")
    if source is None:
        try:
            check_choice("dataset", name, raw_readers.NUM_EXAMPLES)
        except InputError as error:
            raise InputError(f"{error}; for one of your own images: --source=TREE") from error
    # TFDS is imported late so that wrong flags fail at once.
    from resnet_jax.data import folder_to_tfds, small

    is_tree = source is not None and name not in small.NAMES
    kind = folder_to_tfds if is_tree else small
    is_there = kind.find(name, data_dir) is not None
    info = kind.prepare(name, data_dir, source)
    if is_there:
        print(f"{name} is already prepared")
    sizes = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
    print(f"{info.data_dir}: {sizes}")


if __name__ == "__main__":
    run(main)
