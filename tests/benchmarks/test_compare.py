"""The baselines do the same work as this project, and one that dies does not end the others."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import compare as compare_module
from benchmarks.baselines import PYTORCH_SETTINGS
from benchmarks.baselines.networks import layout
from resnet_jax.errors import InputError
from resnet_jax.models import counting, zoo

NETS = (
    *("plain-20", "resnet-20", "plain-18", "resnet-18", "resnet-34", "resnet-50"),
    pytest.param("resnet-164", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("net", NETS)
def test_linen_loop_has_the_same_network(net):
    from benchmarks.baselines.linen_loop import Net

    ours = counting.count(zoo.create(net, num_classes=10), (64, 64, 3))
    assert counting.count(Net(net, 10), (64, 64, 3)) == ours


@pytest.mark.torch
@pytest.mark.parametrize("net", NETS)
def test_pytorch_has_the_same_network(net):
    pytest.importorskip("torch")
    import torch

    from benchmarks.baselines.pytorch import Net

    multiply_adds = []

    def add(layer, inputs, output):
        multiply_adds.append(output.numel() * layer.weight[0].numel())

    theirs = Net(net, 10)
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(add)
    theirs(torch.zeros(2, 3, 64, 64))
    ours = counting.count(zoo.create(net, num_classes=10), (64, 64, 3))
    assert sum(weight.numel() for weight in theirs.parameters()) == ours.num_params
    assert sum(multiply_adds) == 2 * ours.multiply_adds


def program(baseline, net):
    module = f"benchmarks.baselines.{baseline}"
    return [sys.executable, "-m", module, f"--net={net}", "--batch_size=8", "--image_size=8"]


@pytest.mark.slow
@pytest.mark.parametrize("net", ["plain-8", pytest.param("resnet-18", marks=pytest.mark.weekly)])
@pytest.mark.parametrize("baseline", ["ours", "linen_loop", "pytorch"])
def test_baseline_trains_when_it_is_told_to(baseline, net):
    if baseline == "pytorch":
        pytest.importorskip("torch")
    done = subprocess.run(
        [*program(baseline, net), "--num_examples=16"],
        input="2\n3\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ready, *rounds = done.stdout.split("\n")[:-1]
    assert ready.startswith("ready ")
    assert len(rounds) == 2
    made = [line.split() for line in rounds]
    assert [int(steps) for steps, _ in made] == [2, 3]
    assert all(float(seconds) > 0 for _, seconds in made)


def test_settings_of_pytorch_are_told_when_one_is_misspelt():
    done = subprocess.run(
        [*program("ours", "plain-8"), "--setting=float3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "float32" in done.stderr
    assert "channels_last" in PYTORCH_SETTINGS


@pytest.mark.parametrize("name", ["resnet-2x", "resnet-21", "preact-resnet-20", "plain-2"])
def test_unknown_networks_are_one_line(name):
    with pytest.raises(InputError, match=f"net='{name}': baselines are plain-N and resnet-N"):
        layout(name)


PYTHON = """#!/bin/sh
# An interpreter whose baselines train at a fixed speed, less one that ends otherwise.
case "$*" in
  *CHOSEN*) END ;;
  *baselines*) echo ready 1.5; while read -r steps; do echo "$steps" 0.5; done ;;
  *) exec REAL "$@" ;;
esac
"""
ERROR = "RuntimeError: out of memory"
DIES = f"echo '{ERROR}' >&2; echo 'Set DEBUG=1 for more' >&2; exit 3"
FAILURE = f"ended with code 3: {ERROR}"
DIES_IN_ITS_TURN = f"echo ready 1.5; read -r steps; echo $steps 0.5; read -r steps; {DIES}"


def compare(folder: Path, chosen: str, end: str) -> subprocess.CompletedProcess:
    script = PYTHON.replace("CHOSEN", chosen).replace("END", end).replace("REAL", sys.executable)
    python = folder / "python"
    python.write_text(script)
    python.chmod(0o755)
    arguments = ["--nets=plain-8,resnet-8", "--rounds=2", "--pytorch=", f"--output={folder}"]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", f"--python={python}", *arguments],
        capture_output=True,
        text=True,
    )


def by_network(folder: Path) -> dict:
    return json.loads((folder / "speed.json").read_text())["by_network"]


@pytest.mark.slow
@pytest.mark.parametrize("end", [DIES, DIES_IN_ITS_TURN])
def test_baseline_that_dies_is_told_and_the_others_continue(end, tmp_path):
    done = compare(tmp_path, "linen_loop*net=plain-8", end)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"failed: {FAILURE}" in done.stdout
    ours, baseline = by_network(tmp_path)["plain-8"]
    assert ours["ours_over_it"] == [1, 1, 1]
    assert baseline == {"name": baseline["name"], "failure": FAILURE}
    assert [len(one["images_per_second"]) for one in by_network(tmp_path)["resnet-8"]] == [2, 2]


@pytest.mark.slow
def test_baseline_is_measured_without_a_ratio_where_ours_dies(tmp_path):
    done = compare(tmp_path, "baselines.ours*net=resnet-8", DIES)
    assert done.returncode == 1, done.stderr
    ours, baseline = by_network(tmp_path)["resnet-8"]
    assert ours["failure"] == FAILURE
    assert len(baseline["images_per_second"]) == 2
    assert "ours_over_it" not in baseline


@pytest.mark.slow
@pytest.mark.parametrize("end", [DIES, DIES_IN_ITS_TURN])
def test_comparison_without_ours_is_one_line(end, tmp_path):
    done = compare(tmp_path, "baselines.ours*net=plain-8", end)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ours (jax ")
    assert line.endswith(f"): {FAILURE}")


@pytest.mark.parametrize(("alone", "most"), [(True, 1), (False, 3)])
def test_tpu_is_taken_by_one_baseline_at_a_time(alone, most, monkeypatch):
    training, counts = set(), []

    class Running:
        def __init__(self, baseline, net):
            self.baseline, self.failure, self.rates, self.start_seconds = baseline, "", [], 1.0
            training.add(self)
            counts.append(len(training))

        def train_round(self):
            self.rates.append(2.0)

        def end(self):
            training.discard(self)

    monkeypatch.setattr(compare_module, "RunningBaseline", Running)
    monkeypatch.setattr(compare_module, "_ROUNDS", types.SimpleNamespace(value=2))
    monkeypatch.setattr(compare_module.setup, "one_process_at_a_time", lambda: alone)
    baselines = [compare_module.Baseline(name, (), False) for name in ("ours", "one", "other")]
    figures = compare_module._compare("plain-8", baselines, first=True)
    assert (max(counts), training) == (most, set())
    assert all(one["ours_over_it"] == [1, 1, 1] for one in figures)


@pytest.mark.slow
def test_networks_that_are_finished_are_kept_when_the_comparison_is_killed(tmp_path):
    done = compare(tmp_path, "linen_loop*net=resnet-8", "kill -KILL $PPID")
    assert done.returncode == -9
    assert list(by_network(tmp_path)) == ["plain-8"]


def test_interpreter_that_is_not_there_is_one_line():
    arguments = ["--nets=plain-8", "--pytorch=/no/such/python"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: /no/such/python: No such file or directory\n",
    )
