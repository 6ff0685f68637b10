"""The first half hour on a new GPU or TPU, in slices that each leave a result behind.

    python -m benchmarks.accelerator_run --minutes=25 --output=runs/first --workdir=/tmp/first

In this order: `experiments.check`, with and without deterministic operations; this project beside
PyTorch (`benchmarks.compare`); the levers of docs/performance.md, one by one; several seeds on one
device, in one program and, but on a TPU, in several processes; then Figure 6's runs until the time
is up.

Rerun the command to resume: finished slices are left alone, failed ones are tried again, and
Figure 6 continues from its checkpoints. `--minutes` are those of this start; a slice that needs
more than what is left is left out. --output has all results and stays small; --workdir has the
checkpoints. `--tiny` does all of it with tiny networks, to try it on a CPU.

Exit codes: 0 all slices are finished, 1 some failed, 75 the time was up or it was stopped.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from resnet_jax.errors import STOPPED
from resnet_jax.reporting.archive import archive
from resnet_jax.runs import find_runs, write_json
from resnet_jax.runtime import setup
from resnet_jax.runtime.multihost import StopSignals
from resnet_jax.sweeps.local_pool import GRACE_SECONDS, Slot, start_logged

_MINUTES = flags.DEFINE_float("minutes", 25, "of this start", lower_bound=0.1)
_OUTPUT = flags.DEFINE_string("output", None, "folder of the results", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder of data sets, with CIFAR-10")
_TINY = flags.DEFINE_bool("tiny", False, "tiny networks on tiny data: a dry run")

FULL = {
    "checks": "gradients,stream,resume,speed",
    "nets": "resnet-20,resnet-56,resnet-110",
    "batch": 128,
    "imagenet": "resnet-50",
    "imagenet_batch": 256,
    "model": "resnet-56",
    "size": "--seconds=2 --repeats=3",
    "seeds_model": "resnet-20",
    "sweep": "configs/sweeps/cifar10_figure6.py",
    "several": "--filter=resnet-20-seed --seeds=4 --num_steps=2000",
    "figure6": "--seeds=1",
}
TINY = {
    "checks": "stream",
    "nets": "plain-8",
    "batch": 8,
    "imagenet": "plain-8",
    "imagenet_batch": 16,
    "model": "resnet-8",
    "size": "--seconds=0.1 --repeats=1 --image_size=8 --set=model.bn_group_size=8",
    "seeds_model": "plain-8",
    "sweep": "configs/sweeps/digits.py",
    "several": "--filter=plain-20-seed0 --num_steps=10 --override=model.width=4",
    "figure6": "--filter=20-seed0 --num_steps=20 --override=model.width=4",
}
LEVERS: dict[str, tuple[str, dict[str, str]]] = {
    "as it is": ("", {}),
    "not deterministic": ("--set=deterministic=False", {}),
    "command buffers with convolutions": (
        "--set=deterministic=False",
        {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+CONVOLUTION"},
    ),
    "float32 products exact": (
        "--set=deterministic=False",
        {"JAX_DEFAULT_MATMUL_PRECISION": "highest"},
    ),
    "bfloat16": ("--set=deterministic=False --set=model.dtype=bfloat16", {}),
    "one step a call": ("--set=deterministic=False --set=steps_per_dispatch=1", {}),
}
"""docs/performance.md's list "to try first": flags of `experiments.benchmark`, and environment."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """One command.

    Attributes:
      name: of its folder.
      arguments: what follows "python", as for a shell, the folder as {output}.
      least: seconds without which it is not begun.
      environment: variables that it gets.
    """

    name: str
    arguments: str
    least: float
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def slices(sizes: dict[str, Any]) -> Iterator[Slice]:
    """All slices, in order; `sizes` is `FULL` or `TINY`."""
    torch = "" if importlib.util.find_spec("torch") else "--pytorch="
    check = "-m experiments.check --checks={checks} --output={output}"
    yield Slice("check", check, 120)
    yield Slice("check-not-deterministic", f"{check} --deterministic=False", 120)
    compare = f"-m benchmarks.compare {torch} --rounds=3 --seconds=2 --output={{output}}"
    yield Slice("compare", f"{compare} --nets={{nets}} --batch_size={{batch}}", 240)
    imagenet = "--nets={imagenet} --batch_size={imagenet_batch} --settings=amp,amp_compile"
    yield Slice("compare-imagenet", f"{compare} {imagenet}", 180)
    benchmark = "-m experiments.benchmark --models={model} --batch_size={batch} {size}"
    for name, (options, environment) in LEVERS.items():
        arguments = f"{benchmark} {options} --output={{output}}"
        yield Slice(f"lever-{name.replace(' ', '-')}", arguments, 60, environment)
    seeds = "-m benchmarks.several_seeds --model={seeds_model} --batch_size={batch}"
    yield Slice("seeds-in-one-program", f"{seeds} --output={{output}}", 90)
    sweep = "-m experiments.sweep --config={sweep} {data} --max_minutes={minutes}"
    for workers in (1,) if setup.one_process_at_a_time() else (1, 4):
        arguments = f"{sweep} {{several}} --workers={workers} --workdir={{work}}"
        yield Slice(f"seeds-with-{workers}-workers", arguments, 90)
    yield Slice("figure6", f"{sweep} {{figure6}} --workdir={{work}}", 60)


def main() -> int:
    """Runs slice after slice and prints a table; returns the exit code."""
    output, end = Path(_OUTPUT.value), time.monotonic() + 60 * _MINUTES.value
    record = output / "slices.json"
    done = json.loads(record.read_text()) if record.exists() else {}
    todo = list(slices(TINY if _TINY.value else FULL))
    with StopSignals() as stop:
        for each in todo:
            left = end - time.monotonic()
            if stop.asked() or done.get(each.name, {}).get("status") == "finished":
                continue
            least = each.least * (0.05 if _TINY.value else 1)
            if left < least:
                done.setdefault(each.name, {"status": f"left out: takes {least:.0f} s"})
                continue
            print(f"{each.name} …", flush=True)
            done[each.name] = _run(each, end, stop)
            write_json(record, done)
        write_json(record, done)
    _keep_figure6(output)
    return _show([each.name for each in todo], done)


def _run(each: Slice, end: float, stop: StopSignals) -> dict[str, Any]:
    """Runs a slice until it ends, the time is up or the user wants to stop."""
    folder, work = (Path(flag.value) / each.name for flag in (_OUTPUT, _WORKDIR))
    folder.mkdir(parents=True, exist_ok=True)
    work.parent.mkdir(parents=True, exist_ok=True)
    began, data = time.monotonic(), _DATA_DIR.value
    line = each.arguments.format(
        **(TINY if _TINY.value else FULL),
        output=shlex.quote(str(folder)),
        work=shlex.quote(str(work)),
        # What saves when its time is up has a minute for it.
        minutes=f"{max(0.1, (end - began) / 60 - 1):.2f}",
        data=shlex.quote(f"--override=dataset.data_dir={data}") if data else "",
    )
    arguments = shlex.split(line)
    with (folder / "log.txt").open("ab") as log:
        process = start_logged(arguments, Slot(each.environment), log, process_group=0)
        while process.poll() is None and time.monotonic() < end and not stop.asked():
            time.sleep(0.1)
        interrupted = process.poll() is None
        code = _end(process) if interrupted else process.returncode
    status = "failed" if code else "finished"
    status = "unfinished" if interrupted or code == STOPPED else status
    seconds = round(time.monotonic() - began, 1)
    return {"status": status, "code": code, "seconds": seconds, "arguments": arguments}


def _end(process: subprocess.Popen) -> int:
    """Asks a command to save and end, and kills it and what it started if it does not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _keep_figure6(output: Path) -> None:
    """Keeps the finished runs in a few KB each."""
    workdir = Path(_WORKDIR.value) / "figure6"
    found = find_runs(workdir) if workdir.is_dir() else []
    if any(run.status in ("completed", "diverged") for run in found):
        print(f"{len(archive(workdir, output / 'figure6' / 'runs'))} runs kept", flush=True)


def _show(names: list[str], done: dict[str, Any]) -> int:
    table = Table("slice", "status", "seconds", box=None, pad_edge=False)
    for name in names:
        one = done.get(name, {"status": "not begun"})
        table.add_row(name, one["status"], str(one.get("seconds", "")))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    found = [done.get(name, {}).get("status") for name in names]
    if "failed" in found:
        return 1
    return 0 if set(found) == {"finished"} else STOPPED


if __name__ == "__main__":
    command.run(main)
