"""Says what is on pictures: the most likely classes of each file, one line a file.

    python -m experiments.predict --workdir=runs/pets cat.jpg dog.png
    python -m experiments.predict --workdir=runs/pets --json --cam_dir=maps *.jpg

Pictures are fitted to what the run's net was trained on, or cut by `--test_crops` (10-crop, …; see
`experiments.evaluate`). `--json` prints one object a file. `--cam_dir` draws where the net sees the
most likely class, with a box around it, into a folder, and adds the box to the JSON, in the file's
own pixels; `--output_stride=8` dilates an ImageNet net for a finer map.

A file that is missing or broken gets one line on stderr, the others are done all the same, and the
exit code is then 2.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.data.test_crops import VIEWS
from resnet_jax.errors import InputError, check_choice

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder", required=True)
_STEP = flags.DEFINE_integer("step", None, "of the checkpoint; the last one if not given")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the run's data set is now, if it moved")
_TOP = flags.DEFINE_integer("top", 5, "how many classes to name", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "one JSON object a file")
_VIEWS = flags.DEFINE_string("test_crops", None, f"how pictures are cut: {', '.join(VIEWS)}")
_MAPS = flags.DEFINE_string("cam_dir", None, "folder for drawings of where the class is seen")
_OUTPUT_STRIDE = flags.DEFINE_integer("output_stride", None, "pixels a place of the maps: 8 or 16")


def main(argv: list[str]) -> int:
    """Prints a line a file; returns 2 if one could not be read."""
    files = [Path(name) for name in argv[1:]]
    if not files:
        raise InputError("no pictures: name files after the flags")
    if _VIEWS.value is not None:
        check_choice("test_crops", _VIEWS.value, VIEWS)
    if _OUTPUT_STRIDE.value is not None and _MAPS.value is None:
        raise InputError(f"output_stride={_OUTPUT_STRIDE.value}: goes with --cam_dir")
    # Only now, so that wrong flags fail at once.
    from resnet_jax.training import inference, prediction

    net = inference.load(Path(_WORKDIR.value), _STEP.value, _DATA_DIR.value)
    maps = None
    if _MAPS.value:
        maps = prediction.Maps(net, Path(_MAPS.value), _OUTPUT_STRIDE.value)
    code = 0
    for found in prediction.predict(net, files, _TOP.value, view=_VIEWS.value, maps=maps):
        if found.mistake and not _JSON.value:
            print(f"error: {found.mistake}", file=sys.stderr, flush=True)
        else:
            print(found.to_json() if _JSON.value else found.to_line(), flush=True)
        code = command.WRONG_INPUT if found.mistake else code
    return code


if __name__ == "__main__":
    command.run(main, arguments="IMAGES")
