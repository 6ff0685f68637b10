"""Writes a report of runs: what was found, the figure and the tables on one page.

    python -m experiments.report --workdir=runs/degradation

Reads run folders only, so it needs no accelerator and works while the runs are training. Several
`--workdir`s, each the folder of a run or of a sweep, are shown together, in `--output`.

    python -m experiments.report --workdir=runs/figure6 --archive=results/figure6
    python -m experiments.report --results=RESULTS.md

The first also keeps the finished runs in a few KB each, and studies with their data, to be
committed; the second writes what was found and the papers' tables with our numbers, from the
archives in the folder results/ beside the file, and measures anew how far seeds spread there.
"""

import shlex
from pathlib import Path

from absl import flags

from experiments.command import run
from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.reporting import PaperTable, archive, write_report, write_results_md, write_spreads
from resnet_jax.sweeps import grid, plan

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "Folder of a run or of a sweep; may be given several times."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default WORKDIR/report.")
_ARCHIVE = flags.DEFINE_string("archive", None, "Folder that keeps the finished runs, made small.")
_RESULTS = flags.DEFINE_string("results", None, "File with the papers' tables and our numbers.")

PAPERS_SWEEPS = (
    "configs/sweeps/cifar10_figure6.py",
    "configs/sweeps/cifar10_identity_table1.py",
    "configs/sweeps/cifar10_identity_table2.py",
    "configs/sweeps/cifar10_table3.py",
    "configs/sweeps/cifar100_table3.py",
)
"""The tables of RESULTS.md."""


def main() -> None:
    workdirs = [Path(workdir) for workdir in _WORKDIR.value]
    if _ARCHIVE.value and len(workdirs) != 1:
        raise InputError(f"archive={_ARCHIVE.value!r}: give the one --workdir to keep there")
    if not workdirs and not _RESULTS.value:
        raise InputError("give --workdir=FOLDER of runs to report on, or --results=RESULTS.md")
    if workdirs:
        _report(workdirs)
    if _RESULTS.value:
        output = Path(_RESULTS.value)
        tables = [paper_table(path) for path in PAPERS_SWEEPS]
        write_results_md(tables, output.parent / "results", output)
        if output.resolve().parent == Path(__file__).resolve().parents[1]:  # the package's own data
            write_spreads(output.parent / "results")
        print(output)


def _report(workdirs: list[Path]) -> None:
    if not _OUTPUT.value and len(workdirs) > 1:
        raise InputError(
            "output=None: of several --workdirs, give --output=FOLDER for their report"
        )
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdirs[0] / "report"
    report = write_report(workdirs, output)
    for path in report.files.values():
        print(path)
    for problem in report.problems:
        print(f"damaged: {problem}")
    print(report.finding)
    if _ARCHIVE.value:
        kept = archive(workdirs[0], Path(_ARCHIVE.value))
        print(f"{_ARCHIVE.value}: {len(kept)} finished run{'s' * (len(kept) != 1)}")


def paper_table(path: str) -> PaperTable:
    """A table of a paper, as the sweep in that file would repeat it."""
    sweep = grid.load(path, seeds=1)
    command = ["python", "-m", "experiments.sweep", f"--config={path}"]
    return PaperTable(
        title=sweep.title,
        source=sweep.paper or "",
        command=shlex.join([*command, f"--workdir=runs/{sweep.name}"]),
        configs={
            planned.name.removesuffix("-seed0"): runs.as_json(planned.config.to_dict())
            for planned in plan.plan(sweep)
        },
    )


if __name__ == "__main__":
    run(main)
