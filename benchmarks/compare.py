"""Training speed of this project and of baselines, alternately in one run.

    python -m benchmarks.compare --nets=resnet-20,resnet-56,resnet-110 --batch_size=128
    python -m benchmarks.compare --pytorch=/other/venv/bin/python --output=results/speed

Each baseline trains in a process of its own that has compiled already. In each round all of them
train, one after another, so that a machine that slows down slows all. What is printed are medians
over the rounds; a ratio is the median of the rounds' own ratios, beside the smallest and the
largest, of this project in the same number format over the line's baseline. PyTorch may live in
another environment (`--pytorch`), as may the linen loop and this project (`--python`, repeatable).

A TPU lets one process in at a time: there each baseline trains all its rounds before the next one
starts.

For each baseline a network takes its start, in which it compiles (the table's last column), and
`--rounds` times about `--seconds`: with the defaults 20 s beside the start. A round is one step at
least, on accelerators one call of up to 100.

What is finished is written after each network. A baseline that dies, because it runs out of memory
or finds no compiler, is recorded as failed; the others continue, and the exit code is 1 at the end.
"""

import contextlib
import dataclasses
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks.baselines import PYTORCH_SETTINGS
from benchmarks.baselines.networks import layout
from experiments import command
from resnet_jax.errors import InputError
from resnet_jax.runs import write_json
from resnet_jax.runtime import setup

_NETS = flags.DEFINE_list("nets", ["resnet-20", "resnet-56", "resnet-110"], "networks of v1")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "images a step", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "in each of which all baselines train", lower_bound=1)
_SECONDS = flags.DEFINE_float(
    "seconds", 4.0, "that a baseline trains in a round, about", lower_bound=0.1
)
_PYTHON = flags.DEFINE_multi_string("python", [sys.executable], "interpreters with JAX")
_PYTORCH = flags.DEFINE_string("pytorch", sys.executable, "one with PyTorch; '' for none")
_SETTINGS = flags.DEFINE_list("settings", None, "of PyTorch: " + ", ".join(PYTORCH_SETTINGS))
_OUTPUT = flags.DEFINE_string("output", None, "folder for speed.json")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What is started for each network.

    Attributes:
      name: as it is printed, with the versions.
      command: of its process, less the network.
      bfloat16: it computes in that; the others in float32.
    """

    name: str
    command: tuple[str, ...]
    bfloat16: bool


class RunningBaseline:
    """A process that trains a network when it is told to.

    Attributes:
      baseline: what was started.
      start_seconds: until it had compiled and made two steps.
      rates: images a second, one a round.
      failure: why it died; empty while it lives.
    """

    def __init__(self, baseline: Baseline, net: str):
        self.baseline = baseline
        self.start_seconds = 0.0
        self.rates: list[float] = []
        self.failure = ""
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*baseline.command, f"--net={net}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(),
        )
        assert self._process.stdin  # a pipe
        assert self._process.stdout  # as well
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        if ready := self._answer():
            self.start_seconds = float(ready[1])
            self._steps = max(1, round(_SECONDS.value * self._train(2)))

    def train_round(self) -> None:
        """Trains for a round, if it lives."""
        if not self.failure and (rate := self._train(self._steps)):
            self.rates.append(_BATCH_SIZE.value * rate)

    def end(self) -> None:
        """Ends the process, if it lives."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # What it was told last was never read.
            self._stdin.close()
        self._stdout.close()
        self._errors.close()

    def _train(self, num_steps: int) -> float:
        """Trains for at least so many steps; returns the steps a second, 0 if it dies."""
        with contextlib.suppress(BrokenPipeError):  # It has ended: there will be no answer.
            self._stdin.write(f"{num_steps}\n")
            self._stdin.flush()
        made, seconds = self._answer() or (0, 1)
        return int(made) / float(seconds)

    def _answer(self) -> list[str]:
        """The words of its next line; none if it has died."""
        line = self._stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            said = _last_error(self._errors.read())
            self.failure = f"ended with code {code}" + (f": {said}" if said else "")
        return line.split()


def main() -> int:
    """Prints a table for each network, and writes them; returns the exit code."""
    for net in _NETS.value:
        layout(net)  # Before any is started, is there such a network?
    baselines = _baselines()
    machine = _machine() if _OUTPUT.value else None
    by_network: dict[str, list[dict]] = {}
    for net in _NETS.value:
        by_network[net] = _compare(net, baselines, first=not by_network)
        _show(net, by_network[net])
        if _OUTPUT.value:
            record = {"batch_size": _BATCH_SIZE.value, "machine": machine, "by_network": by_network}
            write_json(Path(_OUTPUT.value) / "speed.json", record)
    return int(any("failure" in one for figures in by_network.values() for one in figures))


def _baselines() -> list[Baseline]:
    """This project and all baselines, in this order.

    Raises:
      InputError: an interpreter lacks its framework.
    """
    settings: Sequence[str] = ()
    if _PYTORCH.value:
        code = "import torch; print(torch.cuda.is_available())"
        gpu = _printed(_PYTORCH.value, code, "has no torch").strip() == str(True)
        on_cpu = ("eager", "channels_last", "compile")
        settings = _SETTINGS.value or (PYTORCH_SETTINGS if gpu else on_cpu)
    programs = {"ours": "ours"}
    if any("amp" in setting for setting in settings):
        programs["ours in bfloat16"] = "ours --setting=bfloat16"
    programs["linen loop"] = "linen_loop"
    return [
        *(
            _baseline(name, python, program, "jax")
            for name, program in programs.items()
            for python in _PYTHON.value
        ),
        *(
            _baseline(f"PyTorch {setting}", _PYTORCH.value, f"pytorch --setting={setting}", "torch")
            for setting in settings
        ),
    ]


def _baseline(name: str, python: str, program: str, framework: str) -> Baseline:
    module, *settings = program.split()
    code = f"import sys, {framework} as f; print(f.__version__, sys.version.split()[0])"
    version, of_python = _printed(python, code, f"has no {framework}").split()
    command = (python, "-m", f"benchmarks.baselines.{module}")
    return Baseline(
        f"{name} ({framework} {version}, Python {of_python})",
        (*command, f"--batch_size={_BATCH_SIZE.value}", *settings),
        "bfloat16" in program or "amp" in program,
    )


def _machine() -> str:
    """What baselines find; asked of another process, because this one takes no device."""
    code = "from resnet_jax.runtime import setup; from resnet_jax.training import speed; "
    code += "setup.prepare(); print(speed.describe_machine())"
    return f"{_printed(_PYTHON.value[0], code, 'JAX does not start').strip()}, {platform.system()}"


def _printed(python: str, code: str, mistake: str) -> str:
    line = [python, "-c", code]
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=_environment())
    except OSError as error:
        raise InputError(f"{python}: {error.strerror}") from error
    if done.returncode:
        raise InputError(f"{python}: {mistake}: {_last_error(done.stderr)}")
    return done.stdout


def _environment() -> dict[str, str]:
    # All share one accelerator: JAX must not take most of its memory beforehand.
    return {"CUDA_VISIBLE_DEVICES": "0", **os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def _last_error(text: str) -> str:
    """The last line that names an exception, below which frameworks give hints; or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or [""])[-1]


def _compare(net: str, baselines: Sequence[Baseline], first: bool) -> list[dict]:
    """The metrics of each baseline.

    Raises:
      InputError: ours died in the first contest.
    """
    running: list[RunningBaseline] = []
    alone = setup.one_process_at_a_time()

    def check() -> None:
        ours = running[0]
        if first and ours.failure:
            raise InputError(f"{ours.baseline.name}: {ours.failure}")

    def train_rounds(those: Sequence[RunningBaseline]) -> None:
        for _ in range(_ROUNDS.value):
            for one in those:
                one.train_round()
                check()

    try:
        for baseline in baselines:
            # One after another: two that compile at once would tell nothing of either's start.
            running.append(RunningBaseline(baseline, net))
            check()
            if alone:
                train_rounds(running[-1:])
                running[-1].end()
        if not alone:
            train_rounds(running)
    finally:
        for one in running:
            one.end()
    return [_figures(one, running) for one in running]


def _figures(one: RunningBaseline, running: Sequence[RunningBaseline]) -> dict:
    if one.failure:
        return {"name": one.baseline.name, "failure": one.failure}
    figures = {
        "name": one.baseline.name,
        "start_seconds": one.start_seconds,
        "images_per_second": one.rates,
        "median": statistics.median(one.rates),
    }
    # Ours come first.
    ours = next(each for each in running if each.baseline.bfloat16 == one.baseline.bfloat16)
    if not ours.failure:
        ratios = [mine / its for mine, its in zip(ours.rates, one.rates, strict=True)]
        figures["ours_over_it"] = [min(ratios), statistics.median(ratios), max(ratios)]
    return figures


def _show(net: str, figures: Sequence[dict]) -> None:
    table = Table("", box=None, pad_edge=False, title=f"{net}, batch {_BATCH_SIZE.value}")
    for column in ("images/s", "from … to", "ours over it", "from … to", "start, s"):
        table.add_column(column, justify="right")
    for one in figures:
        if "failure" in one:
            table.add_row(one["name"], "failed")
            continue
        rates, ratios = one["images_per_second"], one.get("ours_over_it")
        table.add_row(
            one["name"],
            f"{one['median']:,.0f}",
            f"{min(rates):,.0f} … {max(rates):,.0f}",
            f"{ratios[1]:.2f}" if ratios else "–",
            f"{ratios[0]:.2f} … {ratios[2]:.2f}" if ratios else "–",
            f"{one['start_seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for one in figures:
        if "failure" in one:
            print(f"{one['name']} failed: {one['failure']}")


if __name__ == "__main__":
    command.run(main)
