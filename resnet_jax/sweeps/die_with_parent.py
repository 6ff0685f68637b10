"""Starts a command that is asked to stop (SIGTERM) when the process that started it is gone.

    python -m resnet_jax.sweeps.die_with_parent PARENT CORES -m experiments.train --config=…

PARENT is the process id of the starter, CORES the CPU cores to be pinned to ("0,1"; "" for all).
The command's Python takes this process's place, so that whoever started it sees only the command.
A module of its own, because code between fork and exec is not safe beside threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def main(parent: str, cores: str, *arguments: str) -> None:
    """Becomes the command."""
    # Schedulers warn all processes of a job with these; the starter answers them with SIGTERM.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # Stays so in the command.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # It was gone before this process could ask to be told.
            sys.exit("the process that started this one is gone")
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
