"""Slices that are interrupted resume, finished ones are left alone, and the time is kept."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import accelerator_run
from resnet_jax.runtime import machine

COMMAND = """
import sys
from benchmarks import accelerator_run
from benchmarks.accelerator_run import Slice
from experiments import command
accelerator_run.slices = lambda sizes: [Slice(*each) for each in {slices}]
command.run(accelerator_run.main)
"""
TOUCH = """-c "open('{output}/made', 'a').write('x')" """


def start(folder, slices, minutes=1.0):
    flags = [f"--output={folder / 'out'}", f"--workdir={folder / 'work'}", f"--minutes={minutes}"]
    code = COMMAND.replace("{slices}", repr(slices))
    return subprocess.Popen([sys.executable, "-c", code, *flags])


def statuses(folder):
    done = json.loads((folder / "out" / "slices.json").read_text())
    return {name: one["status"] for name, one in done.items()}


@pytest.mark.slow
def test_slices_run_once_failures_are_tried_again_and_long_ones_are_left_out(tmp_path):
    slices = [("a", TOUCH, 0), ("b", "-c import+sys", 0), ("c", TOUCH, 999)]
    for _ in range(2):
        assert start(tmp_path, slices).wait() == 1
    left_out = "left out: takes 999 s"
    assert statuses(tmp_path) == {"a": "finished", "b": "failed", "c": left_out}
    assert (tmp_path / "out/a/made").read_text() == "x"
    assert (tmp_path / "out/b/log.txt").read_text().count("SyntaxError") == 2


@pytest.mark.slow
@pytest.mark.parametrize("by", ["time", "signal"])
def test_slice_under_way_is_ended_and_is_there_for_the_next_start(by, tmp_path):
    wait = """-c "import time; open('{output}/pid', 'a').write('x'); time.sleep(600)" """
    process = start(tmp_path, [("a", TOUCH, 0), ("b", wait, 0)], 0.1 if by == "time" else 9)
    if by == "signal":
        while not (tmp_path / "out/b/pid").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert statuses(tmp_path) == {"a": "finished", "b": "unfinished"}
    assert start(tmp_path, [("a", TOUCH, 0), ("b", TOUCH, 0)]).wait() == 0
    assert statuses(tmp_path) == {"a": "finished", "b": "finished"}


@pytest.mark.parametrize("sizes", [accelerator_run.FULL, accelerator_run.TINY])
def test_every_slice_has_a_folder_and_a_command_of_its_own(sizes):
    found = list(accelerator_run.slices(sizes))
    assert len({each.name for each in found}) == len(found)
    for each in found:
        each.arguments.format(**sizes, output="o", work="w", minutes=1, data="")


@pytest.mark.parametrize(("library", "number"), [(True, 0), (False, 1)])
def test_several_processes_do_not_share_a_tpu(library, number, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(machine, "has_tpu_library", lambda: library)
    found = accelerator_run.slices(accelerator_run.FULL)
    assert sum("--workers=4" in each.arguments for each in found) == number


@pytest.mark.weekly
def test_dry_run_is_interrupted_and_resumed(tmp_path):
    command = [sys.executable, "-m", "benchmarks.accelerator_run", "--tiny", "--minutes=30"]
    command += [f"--output={tmp_path / 'out'}", f"--workdir={tmp_path / 'work'}"]
    process = subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    while not (tmp_path / "out/lever-bfloat16/log.txt").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    before = statuses(tmp_path)
    assert before["lever-bfloat16"] == "unfinished"
    assert subprocess.run(command).returncode == 0
    assert set(statuses(tmp_path).values()) == {"finished"}
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert size < 1e6
