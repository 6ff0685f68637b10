"""Eight CPU devices, so that tests can spread a run over several, also where JAX could use a GPU;
and what one test compiled, no other need compile again, nor a process that sees as many devices.

Compiling is most of the time that the tests take. XLA therefore leaves most optimisations out
here; with JAX_DISABLE_MOST_OPTIMIZATIONS=0 the tests run the programs that users run. With
JAX_COMPILATION_CACHE_DIR=FOLDER what was compiled is kept for the next time.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile

import pytest

# The workers of pytest-xdist inherit the environment, and with it the first process's folder.
_cache = tempfile.TemporaryDirectory(prefix="resnet_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _cache.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"  # For other processes, too: the cache asks for the same.

from absl import flags  # noqa: E402

from resnet_jax.runtime import setup  # noqa: E402

setup.prepare()  # As every command does: a run in this process and one in another agree.

# Commands whose functions are tested in this process, where no two can define one flag.
for _name in ("benchmarks.accelerator_run", "benchmarks.pipeline", "experiments.check"):
    importlib.import_module(_name)
    for _flag in list(flags.FLAGS.flags_by_module_dict()[_name]):
        delattr(flags.FLAGS, _flag.name)


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skips a test where no Slurm answers."""
    there = shutil.which("sbatch") and shutil.which("sinfo")
    if not there or subprocess.run(["sinfo"], capture_output=True, timeout=30).returncode:
        pytest.skip("no Slurm answers here")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many of the tests against PyTorch ran: without it they skip."""
    ended = [terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed")]
    ran = sum("torch" in report.keywords for reports in ended for report in reports)
    installed = importlib.util.find_spec("torch")
    if ran or not installed:
        reason = "" if installed else ": it is not installed"
        terminalreporter.write_line(f"{ran} tests against PyTorch ran{reason}")
