"""Writes a report of runs: what was found, the figure and the tables on one page.

python -m experiments.report --workdir=runs/degradation

Reads run folders only, so it needs no accelerator and may run while the runs still go on. Several
`--workdir`s, each the folder of a run or of a sweep, are shown together.
"""

from pathlib import Path

from absl import flags

from experiments.command import run
from resnet_jax.reporting import write_report

WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a run or of a sweep; may be given several times.", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default WORKDIR/report.")


def main(_: list[str]) -> None:
    workdirs = [Path(workdir) for workdir in WORKDIR.value]
    output = Path(OUTPUT.value) if OUTPUT.value else workdirs[0] / "report"
    report = write_report(workdirs, output)
    for path in report.paths:
        print(path)
    print(report.finding)


if __name__ == "__main__":
    run(main)
