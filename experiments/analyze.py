"""Asks trained or untrained nets why depth hurts, and writes what was found.

    python -m experiments.analyze --study=responses --workdir=runs/degradation/plain-20-seed0 \\
        --workdir=runs/degradation/resnet-20-seed0
    python -m experiments.analyze --study=gradients --output=runs/untrained \\
        --config=configs/digits.py:plain-56 --config=configs/digits.py:plain-56,model.norm=none

Writes FOLDER/analysis/STUDY/ with data.csv, figure.svg, figure.png and finding.md, which the report
of FOLDER shows. FOLDER is --output; else the run's folder or, of several runs, their common parent.
A config, file.py:net[,field=value…], is an untrained net with the weights that its seed gives.

    gradients    do they vanish or explode, and the activations? At the start and at the run's
                 checkpoints. variants=True: ReLU, tanh and sigmoid, with and without batch norm
    responses    how strongly the 3×3 layers respond (v1 Figure 7)
    constructed  a deeper net built from a trained one by identity layers: is it as good, and where
                 does it end when trained on, or trained from scratch as long in all? depth=56
                 steps=100
    iterations   does three times the training cure it? Reads runs of one net; trains the longer
                 one if it is not there
    lesions      the error without some of the units, or with some swapped; paths' gradients
    shattering   how alike the gradients of nearby images are, against depth. depths=(8,20,56)
    landscape    the loss around the weights. points=15 reach=1.0
    jacobian     singular values of the input–output Jacobian, against depth
    shortcuts    what passes through shortcuts alone. variants=True: those of v2 Table 1

Options of a study are set with --set=name=value, and finding.md says all their values. Common ones
are `examples` (how many images) and `split` (train or test).
"""

import sys
import time

from absl import flags

from experiments import command
from resnet_jax.studies.study import STUDIES, study

_STUDY = flags.DEFINE_string("study", None, ", ".join(STUDIES), required=True)
_WORKDIR = flags.DEFINE_multi_string("workdir", [], "folder of a trained run; may be repeated")
_CONFIG = flags.DEFINE_multi_string("config", [], "file.py:net, untrained; may be repeated")
_OUTPUT = flags.DEFINE_string("output", None, "folder that gets analysis/STUDY/")
_SET = flags.DEFINE_multi_string("set", [], "option=value of the study; may be repeated")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")


def main(argv: list[str]) -> None:
    """Measures, writes the study's folder and prints the finding."""
    del argv
    began = time.monotonic()
    folder, finding = study(
        _STUDY.value,
        _WORKDIR.value,
        _CONFIG.value,
        _OUTPUT.value,
        _SET.value,
        _DATA_DIR.value,
        sys.argv[1:],
    )
    print(finding)
    print(f"{folder} ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    command.run(main)
