"""Turns a file of weights from elsewhere into a run's folder, and a run's network into a file.

    python -m experiments.convert --source=resnet20.th --workdir=runs/resnet20
    python -m experiments.evaluate --workdir=runs/resnet20
    python -m experiments.convert --workdir=runs/resnet-56 --output=resnet56.safetensors
    python -m experiments.convert --workdir=runs/resnet-56 --output=resnet56.stablehlo

Sources are state dicts of torchvision's and timm's resnet18 to 152 and of
akamaster/pytorch_resnet_cifar10, as .safetensors or PyTorch files (which need `pip install torch`).
Outputs have the same names: torchvision's for ImageNet networks, akamaster's for CIFAR networks.
A .stablehlo or .onnx file (which needs `pip install jax2onnx`) holds a program, from uint8 images
to logits, that runs without this library: see `resnet_jax.interop.programs`.

`--dataset` says on what a source will be evaluated: a data set and fields of `config.dataset`. Its
images are normalised by ImageNet's colours unless the fields say otherwise:

    --dataset=cifar10,data_dir=/data,mean=pixel,std=none
    --dataset=image_folder,data_dir=/data/pets,image_size=224

The folder holds a config with the classes, a checkpoint at step 0 and, in `normalization.npz`, what
images are normalised with (mean=pixel and the like read the training split once), but no summary,
because it is no run. Its
recipe is not the one that made the weights; the field `converted_from` says so, and for that
field `experiments.train` refuses to resume there.
"""

from pathlib import Path

from absl import flags

from configs import cifar10
from experiments import command
from resnet_jax.errors import InputError

_SOURCE = flags.DEFINE_string("source", None, "file of weights to convert")
_OUTPUT = flags.DEFINE_string("output", None, "file to write the workdir's network to")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_DATASET = flags.DEFINE_string(
    "dataset", None, "for a source, name[,key=value…]; cifar10 or cifar100 by its classes"
)
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint to write; the last one if not given")


def main() -> None:
    """Prints one line on what was converted."""
    workdir = Path(_WORKDIR.value)
    if bool(_SOURCE.value) == bool(_OUTPUT.value):
        raise InputError("give either --source, to fill the workdir, or --output, to read from it")
    if _SOURCE.value and _STEP.value is not None:
        raise InputError(f"step={_STEP.value}: goes with --output; a source has no steps")
    if _OUTPUT.value and _DATASET.value:
        raise InputError(f"dataset={_DATASET.value!r}: goes with --source; a run has its own")
    # Only now, so that wrong flags fail at once.
    from resnet_jax.interop import export

    if _SOURCE.value:
        print(export.fill(workdir, Path(_SOURCE.value), _DATASET.value, cifar10.recipe))
    elif _OUTPUT.value:
        print(export.export(workdir, Path(_OUTPUT.value), _STEP.value))


if __name__ == "__main__":
    command.run(main)
