"""A machine that computes what it should passes, and each deviation of another is one line."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import pytest

from configs import digits
from experiments.check import show
from resnet_jax.runs import Recipe
from resnet_jax.runtime import cpu, parallel, setup
from resnet_jax.training import check


class Here:
    """A part that is computed in this process."""

    def __init__(self, work, part, **environment):
        self._part, self._folder = part, work.folder
        self._wide = "JAX_ENABLE_X64" in environment

    def result(self, timeout):
        with jax.enable_x64(self._wide):
            return check._PARTS[self._part](self._folder), ""


@pytest.fixture
def found(monkeypatch):
    """Makes the check of gradients for one family."""
    monkeypatch.setattr(check, "CASES", (check._ALONE,))
    monkeypatch.setattr(check._Work, "start", lambda *args, **kwargs: Here(*args, **kwargs))

    def find(folder):
        return list(check._check_gradients(check._Work(folder, {}, 60, None, None)))

    return find


@pytest.mark.weekly
def test_gradients_are_those_of_float64_on_every_engine(found, tmp_path, capsys):
    rows = found(tmp_path)
    assert show(rows) == 0
    assert capsys.readouterr().err == ""
    assert [row.check for row in rows] == ["gradients", *["same step twice"] * 3, *["engines"] * 2]
    assert all(row.value < 1e-5 for row in rows)
    assert rows[-1].note == f"{jax.device_count()} device(s)"


@pytest.mark.slow
def test_wrong_gradient_is_one_line_and_exit_code_1(found, tmp_path, monkeypatch, capsys):
    right = cpu._kernel_gradient
    monkeypatch.setattr(cpu, "_kernel_gradient", lambda *args: 1.001 * right(*args))
    assert show(found(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "deviates: gradients: residual, batch norm, float32, jit, one device: 0.0"
    )
    assert line.endswith("of the norm, at most 0.0001")


class Lowered(Exception):
    """In place of a step: its program, as StableHLO."""


@pytest.mark.parametrize(("dtype", "exact"), [("float32", True), ("bfloat16", False)])
def test_float32_products_are_not_rounded_as_accelerators_do_by_default(
    dtype, exact, monkeypatch, tmp_path
):
    compiled = parallel.ENGINES["jit"]

    def lower(*arguments):
        program = compiled(*arguments)

        def stop(*inputs):
            raise Lowered(program.lower(*inputs).as_text())

        return dataclasses.replace(program, call=stop)

    monkeypatch.setitem(parallel.ENGINES, "jit", lower)
    monkeypatch.setattr(check, "CASES", (check.Case("bottleneck", "batch", dtype),))
    with pytest.raises(Lowered) as lowered:
        check._gradients(tmp_path, dtype)
    lines = str(lowered.value).splitlines()
    # The forward pass and the gradients of eight convolutions and the classifier.
    products = [line for line in lines if re.search(r"stablehlo\.(convolution|dot_general)", line)]
    assert len(products) > 20
    assert all(("HIGHEST" in line) == exact for line in products)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import time; time.sleep(60)", "no answer in 2 s"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_compiler_that_crashes_or_hangs_is_a_finding(code, failure, tmp_path, capsys):
    process = check._Process(["timeit", "-n1", "-r1", code], tmp_path, {})
    _, told = process.result(2 if "sleep" in code else 60)
    assert told == failure
    assert show([check.Finding("gradients", "plain", None, 1e-4, "", told)]) == 1
    assert capsys.readouterr().err == (
        f"deviates: gradients: plain: no result, at most 0.0001 ({failure})\n"
    )


class Counted:
    """A part that takes the device until it has ended, and finds nothing."""

    now, most = 0, 0

    def __init__(self, work, part, **environment):
        self._takes = "JAX_PLATFORMS" not in environment
        Counted.now += self._takes
        Counted.most = max(Counted.most, Counted.now)

    def running(self):
        return False

    def kill(self):
        Counted.now -= self._takes

    def result(self, timeout):
        self.kill()
        return None, "nothing found"


@pytest.mark.parametrize("name", ["gradients", "resume"])
@pytest.mark.parametrize(("alone", "most"), [(True, 1), (False, 2)])
def test_tpu_is_taken_by_one_process_at_a_time(name, alone, most, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "one_process_at_a_time", lambda: alone)
    monkeypatch.setattr(check._Work, "start", lambda *args, **kwargs: Counted(*args, **kwargs))
    monkeypatch.setattr(Counted, "most", 0)
    tiny = Recipe.from_config(digits.get_config("resnet-8"))
    found = list(check.CHECKS[name](check._Work(tmp_path, {}, 60, tiny, None)))
    assert all(one.note == "nothing found" for one in found)
    assert (Counted.now, Counted.most) == (0, most)


def test_stream_is_compared_pixel_by_pixel(monkeypatch, tmp_path):
    assert check._stream(tmp_path, num_workers=0) == 0
    cut = check.image_ops.render
    monkeypatch.setattr(check.image_ops, "render", lambda *args: cut(*args) // 2)
    assert check._stream(tmp_path, num_workers=0) > 1000


def test_missing_device_is_one_line_and_not_a_deviation_of_each_part():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.check", "--checks=gradients"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: JAX finds no device (JAX_PLATFORMS=cuda)")


@pytest.mark.weekly
def test_command_finds_nothing_here(tmp_path):
    command = [sys.executable, "-m", "experiments.check", "--timeout=900", f"--output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "check.json").read_text())["found"]
    assert {row["check"] for row in written} >= {
        "gradients",
        "engines",
        "stream",
        "resume",
        "speed",
    }
