"""Prints the top classes of each image, one line a file.

    python -m experiments.predict --workdir=runs/pets cat.jpg dog.png
    python -m experiments.predict --workdir=runs/pets --json --cam_dir=maps FOLDER
    curl https://example.org/cat.jpg | python -m experiments.predict --workdir=runs/pets -

A folder stands for the images in it and in its folders; a note on stderr counts those of types that
are not read. "-" is an image on standard input. `--top=3` names three classes, not five. Images are
fitted to what the run's network was trained on, or cut by `--test_crops` (10-crop, …; see
`experiments.evaluate`); of a network of rectangles they must be such ones. A file's EXIF
orientation is applied, unless the run read its own images as they are stored
(`dataset.exif_orientation=False`). `--json` prints one object a file. `--cam_dir` draws where the
network sees the most likely class, with a box around it, into a folder, and adds the box to the
JSON, in the upright file's pixels; `--output_stride=8` dilates an ImageNet network for a finer map.

A file that is missing, broken or does not fit gets one line on stderr, the others are done all the
same, and the exit code is then 2.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.data import image_folder
from resnet_jax.data.image_ops import TEST_CROPS
from resnet_jax.errors import WRONG_INPUT, InputError, check_choice
from resnet_jax.runs import load_recipe

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the last one if not given")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the run's data set is now, if it moved")
_TOP = flags.DEFINE_integer("top", 5, "how many classes to name", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "one JSON object a file")
_CROPS = flags.DEFINE_string("test_crops", None, f"how images are cut: {', '.join(TEST_CROPS)}")
_CAM_DIR = flags.DEFINE_string("cam_dir", None, "folder for drawings of where the class is seen")
_OUTPUT_STRIDE = flags.DEFINE_integer("output_stride", None, "pixels a place of the maps: 8 or 16")


def main(argv: list[str]) -> int:
    """Prints a line a file; returns 2 if one could not be read."""
    if not argv[1:]:
        raise InputError('no images: name files or folders after the flags, or "-" for stdin')
    paths = [Path(name) for name in argv[1:]]
    files = image_folder.find(paths)
    if _CROPS.value is not None:
        check_choice("test_crops", _CROPS.value, TEST_CROPS)
    if _OUTPUT_STRIDE.value is not None and _CAM_DIR.value is None:
        raise InputError(f"output_stride={_OUTPUT_STRIDE.value}: goes with --cam_dir")
    load_recipe(Path(_WORKDIR.value))
    # Only now, so that wrong flags and folders fail at once.
    from resnet_jax.reporting.predictions import draw_map
    from resnet_jax.runtime import setup
    from resnet_jax.training import inference

    setup.prepare()
    net = inference.load(Path(_WORKDIR.value), _STEP.value, _DATA_DIR.value)
    cams = None
    if _CAM_DIR.value:
        folder, stride = Path(_CAM_DIR.value), _OUTPUT_STRIDE.value
        cams = inference.CamDrawer(net, folder, stride, draw_map, files)
    for folder in paths:
        if folder not in files and (others := image_folder.passed_over(folder)):
            read = ", ".join(image_folder.SUFFIXES)
            print(f"note: {folder}: passed over {others} (read are {read})", file=sys.stderr)
    code = 0
    for found in inference.predict(net, files, _TOP.value, view=_CROPS.value, cams=cams):
        if found.error and not _JSON.value:
            print(f"error: {found.error}", file=sys.stderr, flush=True)
        else:
            print(found.to_json() if _JSON.value else found.to_line(), flush=True)
        code = WRONG_INPUT if found.error else code
    return code


if __name__ == "__main__":
    command.run(main, arguments="IMAGES")
