"""Does this machine compute what it should, and how fast? The first command on a new machine.

    python -m experiments.check
    python -m experiments.check --onednn=False --output=runs/check

- gradients: a training step of each family of networks, with and without batch norm, in float32
  (at JAX's highest precision, which is not its default on accelerators) and bfloat16, against
  float64 on the CPU; the same step twice is bitwise identical; `pmap` and all devices give what
  `jit` on one device gives;
- stream: batches that a worker process cuts, against slices of the images;
- resume: a run that is killed and resumes is bitwise identical to one that ran through;
- speed: images a second, compile time, memory, and which kernels compute the convolutions.

The exit code is 1 if anything deviates, with a line for each on stderr. `docs/check.md` tells what
was found on which versions. XLA_FLAGS of the environment hold for everything but the reference.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from configs import cifar10, digits
from experiments import command
from resnet_jax import runs
from resnet_jax.errors import check_choice
from resnet_jax.runs import Recipe
from resnet_jax.sweeps import local_pool
from resnet_jax.training import check

TINY = (
    "resnet-8,model.width=4,batch_size=32,model.bn_group_size=16,num_steps=400,log_every=10,"
    "evaluate_every=200,checkpoint_every=20,dataset.train=train[:320],dataset.test=test[:64]"
)

_CHECKS = flags.DEFINE_list("checks", list(check.CHECKS), "which, in this order")
_ONEDNN = flags.DEFINE_bool("onednn", True, "on CPUs: oneDNN's convolutions, where they pay")
_DETERMINISTIC = flags.DEFINE_bool("deterministic", True, "on GPUs: as CIFAR's configs have it")
_TIMEOUT = flags.DEFINE_float(
    "timeout", 300, "seconds after which a process counts as hanging", lower_bound=1
)
_OUTPUT = flags.DEFINE_string("output", None, "folder for check.json")


def main() -> int:
    """Prints the table, and returns 1 if anything deviates."""
    for name in _CHECKS.value or [""]:
        check_choice("checks", name, check.CHECKS)
    local_pool.slots(1, None)  # No device at all is one line, and not a deviation of each part.
    options = {"onednn": _ONEDNN.value, "deterministic": _DETERMINISTIC.value}
    timed = Recipe.from_config(cifar10.get_config("resnet-20")).replace(**options)
    tiny = Recipe.from_config(digits.get_config(TINY)).replace(**options)
    found = check.run(_CHECKS.value, tiny=tiny, timed=timed, timeout=_TIMEOUT.value)
    if _OUTPUT.value:
        rows = [dataclasses.asdict(one) | {"deviates": one.deviates} for one in found]
        runs.write_json(Path(_OUTPUT.value) / "check.json", {**options, "found": rows})
    return show(found)


def show(found: Sequence[check.Finding]) -> int:
    """Prints the table, and a line for each deviation; returns the exit code."""
    table = Table(box=None, pad_edge=False)
    for title in ("check", "case", "found", "allowed", ""):
        table.add_column(title, justify="right" if title in ("found", "allowed") else "left")
    for one in found:
        value = "–" if one.value is None else f"{one.value:.3g}"
        limit = "" if one.limit is None else f"{one.limit:g}"
        mark = "DEVIATES" if one.deviates else one.note
        table.add_row(one.check, one.case, f"{value} {one.unit}".strip(), limit, mark)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    deviations = [one for one in found if one.deviates]
    for one in deviations:
        print(f"deviates: {one}", file=sys.stderr)
    return int(bool(deviations))


if __name__ == "__main__":
    command.run(main)
