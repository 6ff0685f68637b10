"""Tries an installed wheel away from the checkout: a network, a study and a report.

python .ci/try_wheel.py results/digits_depth
"""

import sys
import tempfile
from pathlib import Path

import resnet_jax
from resnet_jax.models import zoo
from resnet_jax.reporting import write_report
from resnet_jax.runs import load_recipe
from resnet_jax.studies import study


def main(runs: Path) -> None:
    """Prints what each gives."""
    print(resnet_jax.__file__)
    print(zoo.create("preact-resnet-110").architecture)
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(runs / "plain-8-seed0")
        written, finding = study.run("gradients", recipes=[recipe], output=folder)
        print(finding, sorted(path.name for path in written.iterdir()))
        print(write_report([runs], Path(folder, "report")).finding)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
