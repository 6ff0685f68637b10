"""Asks trained or untrained networks why depth hurts, and writes what was found.

    python -m experiments.analyze --study=responses --workdir=runs/degradation
    python -m experiments.analyze --study=lesions --workdir=runs/degradation/plain-20-seed0 \\
        --workdir=runs/degradation/resnet-20-seed0
    python -m experiments.analyze --study=gradients --output=runs/untrained \\
        --config=configs/digits.py:plain-56 --config=configs/digits.py:plain-56,model.norm=none

Writes FOLDER/analysis/STUDY/ with data.csv, figure.svg, figure.png and finding.md, which the report
of FOLDER shows. FOLDER is --output; else the run's folder or, of several runs, their common parent.
A config, file.py:network[,field=value…], is an untrained network with the weights that its seed
gives; `--untrained` asks the networks of runs as they were before training. Runs that differ in the
seed alone are seeds of one network, unless one diverged or is not finished; sentences that compare
networks need five of each.

    gradients              do they vanish or explode, and the activations? At the start and at the
                           run's checkpoints. variants=True: ReLU, tanh and sigmoid, with and
                           without batch norm. image_size=32
    responses              how strongly the 3×3 layers respond (v1 Figure 7)
    identity_construction  a deeper network built from a trained one by identity layers: is it as
                           good, and does training stay there? depth=56 steps=100
                           from_scratch=False: do not train the deep one from scratch, too
    iterations             does three times the training cure it? Reads runs of two lengths; trains
                           the longer ones if they are not there
    lesions                the error without some of the blocks, or with some swapped; which paths
                           carry the gradient. over_training=True: at every checkpoint
    shattering             how alike the gradients of nearby images are, against depth.
                           depths=(8,20,56) seeds=5
    landscape              the loss around the weights. points=15 reach=1.0
    jacobian               singular values of the input–output Jacobian, against depth
    growth                 how the first update grows from layer to layer, against the final
                           training error: of runs, such as configs/sweeps/digits_explosion.py's
    sharpness              the largest eigenvalue of the loss's Hessian where training ends and in
                           the network built by identity layers, and at which learning rates and
                           from how far away training comes back there. rates=(0.01,0.001)
                           noise=(0.1,0.5) depth=56
    shortcuts              what passes through shortcuts alone. variants=True: those of v2 Table 1

Options of a study are set with --set=name=value, and finding.md says all their values. Common ones
are `examples` (how many images), `split` (train or test) and `seeds` (how many initial weights an
untrained network gets).
"""

import sys
import time
from pathlib import Path

from absl import flags

from experiments import command
from resnet_jax.runs import Recipe, load_recipe
from resnet_jax.runtime import setup
from resnet_jax.studies import networks, study
from resnet_jax.sweeps import grid

_STUDY = flags.DEFINE_string("study", None, "name of the study; see above", required=True)
_WORKDIR = flags.DEFINE_multi_string("workdir", [], "folder of a run, or of runs; may be repeated")
_CONFIG = flags.DEFINE_multi_string("config", [], "file.py:network, untrained; may be repeated")
_UNTRAINED = flags.DEFINE_bool("untrained", False, "ask the runs' networks as before training")
_OUTPUT = flags.DEFINE_string("output", None, "folder that gets analysis/STUDY/")
_SET = flags.DEFINE_multi_string("set", [], "option=value of the study; may be repeated")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data set is now, if it has moved")


def main() -> None:
    """Measures, writes the study's folder and prints the finding."""
    began = time.monotonic()
    recipes = [_load_recipe(text) for text in _CONFIG.value]
    _set_up(recipes)
    folder, finding = study.run(
        _STUDY.value,
        _WORKDIR.value,
        recipes,
        _OUTPUT.value,
        _SET.value,
        _DATA_DIR.value,
        _UNTRAINED.value,
        sys.argv[1:],
    )
    print(finding)
    print(f"{folder} ({time.monotonic() - began:.0f} s)")


def _load_recipe(text: str) -> Recipe:
    path, _, argument = text.partition(":")
    return Recipe.from_config(grid.load_config_file("config", path)(argument or None))


def _set_up(recipes: list[Recipe]) -> None:
    """Sets JAX up; for a study that trains, as the recipes have it."""
    if not hasattr(study.find(_STUDY.value), "TRAINS"):
        return setup.prepare()
    paths = [path for workdir in _WORKDIR.value for path in networks.runs_of(Path(workdir))]
    setup.prepare_for([*recipes, *map(load_recipe, paths)])


if __name__ == "__main__":
    command.run(main)
