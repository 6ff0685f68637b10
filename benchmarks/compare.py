"""Ours beside what a user would pick instead: training speed, turn about, in one run.

    python -m benchmarks.compare --nets=resnet-20,resnet-56,resnet-110 --batch_size=128
    python -m benchmarks.compare --pytorch=/other/venv/bin/python --output=results/speed

Each contestant trains in a process of its own that has compiled already, and the turns go round,
so that a machine that slows down slows all. What is printed are medians over the rounds; a ratio is
the median of the rounds' own ratios, beside the smallest and the largest, of the first of ours in
the same number format over the line's contestant. PyTorch may live in another environment
(`--pytorch`), as may the peers and ours (`--python`, several times).
"""

import dataclasses
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks.peers import PYTORCH_SETTINGS
from benchmarks.peers.nets import layout
from experiments import command
from resnet_jax.errors import InputError
from resnet_jax.runs import write_json

_NETS = flags.DEFINE_list("nets", ["resnet-20", "resnet-56", "resnet-110"], "nets of v1")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "images a step", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "turns of each contestant", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "of one turn, about", lower_bound=0.1)
_PYTHON = flags.DEFINE_multi_string("python", [sys.executable], "interpreters with JAX")
_PYTORCH = flags.DEFINE_string("pytorch", sys.executable, "one with PyTorch; '' for none")
_SETTINGS = flags.DEFINE_list("settings", None, "of PyTorch: " + ", ".join(PYTORCH_SETTINGS))
_OUTPUT = flags.DEFINE_string("output", None, "folder for speed.json")


@dataclasses.dataclass
class Contestant:
    """A process that trains when it is told to.

    Attributes:
      name: as it is printed.
      bfloat16: it computes in that; the others in float32.
      start_seconds: until it had compiled and made two steps.
      rates: images a second, one a round.
    """

    name: str
    process: subprocess.Popen
    bfloat16: bool
    start_seconds: float = 0.0
    rates: list[float] = dataclasses.field(default_factory=list)

    def train(self, num_steps: int) -> float:
        """Trains for at least so many steps and returns the steps a second."""
        self.process.stdin.write(f"{num_steps}\n")
        self.process.stdin.flush()
        made, seconds = self.answer().split()
        return int(made) / float(seconds)

    def answer(self) -> str:
        """The next line.

        Raises:
          InputError: the process has ended.
        """
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise InputError(f"{self.name}: ended with code {self.process.returncode}, see above")
        return line


def main(argv: list[str]) -> None:
    """Prints a table for each net, and writes them."""
    del argv
    for net in _NETS.value:
        layout(net)  # Before any is started, is there such a net?
    contests = {}
    for net in _NETS.value:
        contestants = _enter(net)
        try:
            _contest(contestants)
        finally:
            for one in contestants:
                one.process.kill()
        contests[net] = [_figures(one, _ours(contestants, one.bfloat16)) for one in contestants]
        _show(net, contests[net])
    if _OUTPUT.value:
        record = {"batch_size": _BATCH_SIZE.value, "machine": _machine(), "contests": contests}
        write_json(Path(_OUTPUT.value) / "speed.json", record)


def _enter(net: str) -> list[Contestant]:
    settings = (_SETTINGS.value or _usual_settings()) if _PYTORCH.value else ()
    entries = [("ours", python, "ours", "jax") for python in _PYTHON.value]
    if any("amp" in setting for setting in settings):
        entries += [
            ("ours in bfloat16", python, "ours --setting=bfloat16", "jax")
            for python in _PYTHON.value
        ]
    entries += [("linen loop", python, "linen_loop", "jax") for python in _PYTHON.value]
    entries += [
        (f"PyTorch {setting}", _PYTORCH.value, f"pytorch --setting={setting}", "torch")
        for setting in settings
    ]
    return [_start(net, *entry) for entry in entries]


def _usual_settings() -> Sequence[str]:
    code = "import torch; print(torch.cuda.is_available())"
    gpu = subprocess.run([_PYTORCH.value, "-c", code], capture_output=True, text=True).stdout
    return PYTORCH_SETTINGS if gpu.strip() == str(True) else ("eager", "channels_last", "compile")


def _start(net: str, name: str, python: str, program: str, framework: str) -> Contestant:
    module, *settings = program.split()
    asked = [f"--net={net}", f"--batch_size={_BATCH_SIZE.value}", *settings]
    versions = _versions(python, framework)
    process = subprocess.Popen(
        [python, "-m", f"benchmarks.peers.{module}", *asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # All share one accelerator: JAX must not take most of its memory beforehand.
        env={"CUDA_VISIBLE_DEVICES": "0", **os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    bfloat16 = "bfloat16" in program or "amp" in program
    contestant = Contestant(f"{name} ({versions})", process, bfloat16)
    # One after another: two that compile at once would tell nothing of either's start.
    contestant.start_seconds = float(contestant.answer().split()[1])
    return contestant


def _versions(python: str, framework: str) -> str:
    code = f"import sys, {framework} as f; print(f.__version__, sys.version.split()[0])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{python}: has no {framework}: {done.stderr.strip().splitlines()[-1]}")
    version, of_python = done.stdout.split()
    return f"{framework} {version}, Python {of_python}"


def _contest(contestants: Sequence[Contestant]) -> None:
    steps = {}
    for one in contestants:
        steps[one.name] = max(1, round(_SECONDS.value * one.train(2)))
    for _ in range(_ROUNDS.value):
        for one in contestants:
            one.rates.append(_BATCH_SIZE.value * one.train(steps[one.name]))


def _ours(contestants: Sequence[Contestant], bfloat16: bool) -> Contestant:
    """The first of ours in that format; ours come first."""
    return next(one for one in contestants if one.bfloat16 == bfloat16)


def _figures(one: Contestant, ours: Contestant) -> dict:
    ratios = [mine / its for mine, its in zip(ours.rates, one.rates, strict=True)]
    return {
        "name": one.name,
        "start_seconds": one.start_seconds,
        "images_per_second": one.rates,
        "median": statistics.median(one.rates),
        "ours_over_it": [min(ratios), statistics.median(ratios), max(ratios)],
    }


def _show(net: str, figures: Sequence[dict]) -> None:
    table = Table("", box=None, pad_edge=False, title=f"{net}, batch {_BATCH_SIZE.value}")
    for column in ("images/s", "from … to", "ours over it", "from … to", "start, s"):
        table.add_column(column, justify="right")
    for one in figures:
        rates, (low, middle, high) = one["images_per_second"], one["ours_over_it"]
        table.add_row(
            one["name"],
            f"{one['median']:,.0f}",
            f"{min(rates):,.0f} … {max(rates):,.0f}",
            f"{middle:.2f}",
            f"{low:.2f} … {high:.2f}",
            f"{one['start_seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _machine() -> str:
    # Only now: it starts JAX.
    from experiments.speed import machine
    from resnet_jax import backends

    backends.prepare()
    return f"{machine.describe()}, {platform.system()}"


if __name__ == "__main__":
    command.run(main)
