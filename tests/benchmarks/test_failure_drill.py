"""A run struck by every kind of fault ends with the bits of one that nothing disturbed."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults, trainers

REPOSITORY = Path(__file__).parents[2]


def test_deck_has_every_kind_of_fault_and_is_the_same_for_the_same_seed():
    deck = faults.deal(30, random.Random(1))
    assert len(deck) == 30
    assert set(deck) == (faults.STOPS.keys() | faults.DAMAGES.keys()) - faults.left_out().keys()
    assert deck == faults.deal(30, random.Random(1))
    assert deck != faults.deal(30, random.Random(2))


def test_processes_train_on_cpu_devices_where_there_are_accelerators(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    started = []
    monkeypatch.setattr(
        trainers.subprocess, "Popen", lambda *args, env, **options: started.append(env)
    )
    trainers.Trainers(tmp_path, tmp_path, processes=2, devices=3, steps=20).start()
    seen = [(env["JAX_PLATFORMS"], env["JAX_NUM_CPU_DEVICES"]) for env in started]
    assert seen == [("cpu", "3")] * 2


@pytest.mark.weekly
def test_run_of_two_processes_survives_one_fault_of_each_kind(tmp_path):
    command = [sys.executable, "-m", "benchmarks.failure_drill", "--faults=14", "--num_steps=60"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    for kind in (faults.STOPS.keys() | faults.DAMAGES.keys()) - faults.left_out().keys():
        assert f"| {kind} | 1 | 1 | 1 |" in done.stdout
    assert "0 failures of whole runs" in done.stdout
