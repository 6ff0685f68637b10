"""A way to run the real commands many times: each in a process of its own, forked when all is
imported.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
FORKING = """
import json, os, runpy, sys, traceback
import jax, matplotlib.figure, optax, orbax.checkpoint, safetensors.numpy, sklearn.datasets
import tensorboardX, tensorflow_datasets
from tensorflow_datasets.core import read_only_builder, registered
import resnet_jax.data.small, resnet_jax.data.device_dataset, resnet_jax.training.evaluation
import resnet_jax.training.trainer

for line in sys.stdin:
    module, arguments, environment, out, err = json.loads(line)
    pid = os.fork()
    if not pid:
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def run_command(tmp_path_factory) -> Iterator[Callable[..., Done]]:
    """`run_command("train", "--workdir=…")` runs that command, in some tenths of a second.

    Other keywords are variables of its environment.
    """
    texts = tmp_path_factory.mktemp("printed")
    out, err = str(texts / "out"), str(texts / "err")
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )

    def run(command: str, *flags: str, **environment: str) -> Done:
        request = [f"experiments.{command}", flags, environment, out, err]
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return Done(code, *(Path(text).read_text(errors="replace") for text in (out, err)))

    yield run
    server.stdin.close()
    server.wait()
