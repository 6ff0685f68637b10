"""One command a study: on runs and untrained nets it leaves data, a figure and a finding."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import digits
from experiments import command
from resnet_jax import runs, studies
from resnet_jax.errors import InputError
from resnet_jax.reporting import write_report
from resnet_jax.studies.study import STUDIES, study
from resnet_jax.training import run

TINY = (
    "{}-5,model.block=one_layer,batch_size=16,num_steps=8,log_every=4,evaluate_every=8,checkpoint_every=4,"
    "max_to_keep=9,model.width=4,model.bn_group_size=8,dataset.train=train[:200],"
    "dataset.test=test[:64]"
)
FEW = "examples=8"
ASKED = {  # of which run, with which settings
    "gradients": ("plain", [FEW]),
    "responses": ("plain", [FEW]),
    "constructed": ("plain", [FEW, "steps=2", "depth=8"]),
    "iterations": ("plain", ["times=2"]),
    "lesions": ("resnet", [FEW, "repeats=1"]),
    "shattering": ("resnet", [FEW, "depths=5"]),
    "landscape": ("resnet", [FEW, "points=3"]),
    "jacobian": ("resnet", [FEW, "places=2"]),
    "shortcuts": ("resnet", [FEW]),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder with two runs: plain-5 and resnet-5."""
    folder = tmp_path_factory.mktemp("sweep")
    for name in ("plain", "resnet"):
        run.train(digits.get_config(TINY.format(name)), folder / name)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (STUDIES[name] == "trainings"))
        for name in STUDIES
    ],
)
def test_study_of_a_run_leaves_data_figure_and_finding(sweep, name):
    run, settings = ASKED[name]
    written, finding = study(name, [str(sweep / run)], output=str(sweep), settings=settings)
    assert written == sweep / "analysis" / name
    with (written / "data.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["net"] and row["family"] for row in rows)
    assert "<svg" in (written / "figure.svg").read_text()
    assert (written / "figure.png").read_bytes().startswith(b"\x89PNG")
    text = (written / "finding.md").read_text()
    assert text.startswith(finding)
    assert "nan" not in finding
    report = write_report([sweep], sweep / "report")
    assert name.capitalize() in report.index.read_text()


def test_notebook_lines_of_the_documentation_run(sweep, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/degradation.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    shutil.copytree(sweep / "plain", tmp_path / "runs/degradation/plain-56-seed0")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    assert names["signals"].ratio > 0
    assert names["errors"].shape == (len(names["model"].unit_names),)


@pytest.mark.slow
def test_scratch_is_trained_as_long_as_the_shallow_net_and_the_built_one_together(sweep, tmp_path):
    run, settings = ASKED["constructed"]
    study("constructed", [str(sweep / run)], output=str(tmp_path), settings=settings)
    with (tmp_path / "analysis/constructed/data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "training"]
    at = {
        start: [int(row["at_step"]) for row in rows if row["start"] == start]
        for start in ("constructed", "scratch")
    }
    assert at == {"constructed": [9, 10], "scratch": list(range(1, 11))}


def test_paths_have_every_length_and_fewer_draws_of_each_in_a_deep_net(
    sweep, tmp_path, monkeypatch
):
    from resnet_jax.studies import measures

    asked = []
    original = studies.lesions.path_gradients
    asking = lambda *net, **how: asked.append(how["repeats"]) or original(*net, **how)
    monkeypatch.setattr(studies.lesions, "path_gradients", asking)
    for most in (100, 8):
        monkeypatch.setattr(measures, "_PATHS", most)
        study("lesions", [str(sweep / "resnet")], output=str(tmp_path), settings=[FEW, "repeats=3"])
    with (tmp_path / "analysis/lesions/data.csv").open() as file:
        lengths = [int(row["length"]) for row in csv.DictReader(file) if row["kind"] == "path"]
    assert lengths == [0, 1, 2, 3]
    assert asked == [3, 2]


def finished(workdir, config) -> int:
    """Writes a run's folder as if it had been trained."""
    errors = {"train_error": 0.5, "test_error": 0.5}
    runs.write_json(workdir / "config.json", {"config": config.to_dict()})
    row = {"step": config.num_steps, "split": "train", "error": 0.5}
    runs.write_text(workdir / "metrics.jsonl", json.dumps(row) + "\n")
    runs.write_json(workdir / "summary.json", {"status": "completed", **errors})
    return 0


@pytest.mark.parametrize("steps", [(10, 30), (10,)])
def test_lengths_are_compared_within_one_net_not_one_name(steps, tmp_path, monkeypatch):
    from resnet_jax.studies import trainings

    trained = []
    train = lambda config, path: trained.append(path.name) or finished(path, config)
    monkeypatch.setattr(trainings, "train", train)
    for activation in ("relu", "tanh"):
        for length in steps:
            fields = f"plain-20,num_steps={length},model.activation={activation}"
            finished(tmp_path / f"{activation}-{length}", digits.get_config(fields))
    workdirs = [str(path) for path in tmp_path.iterdir()]
    _, finding = study("iterations", workdirs, output=str(tmp_path), settings=["times=3"])
    assert sorted(trained) == ([] if len(steps) == 2 else ["relu-10-3x", "tanh-10-3x"])
    assert finding.count("after 10 steps and 50.0% after 30") == 2
    assert "plain-20, activation=tanh has a training error" in finding


def test_folder_that_is_no_run_is_one_line_before_a_training_study(tmp_path):
    runs.write_json(tmp_path / "config.json", {"config": {"seed": 0}})
    with pytest.raises(InputError, match="has no section 'model'"):
        study("iterations", [str(tmp_path)])


@pytest.mark.slow
def test_command_studies_untrained_nets(tmp_path):
    net = f"--config=configs/digits.py:{TINY.format('plain')}"
    command = [sys.executable, "-m", "experiments.analyze", "--study=responses", net]
    done = subprocess.run(
        [*command, f"--output={tmp_path}", "--set=examples=8"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    finding = (tmp_path / "analysis/responses/finding.md").read_text()
    assert "plain-5" in done.stdout
    assert "examples 8, split test" in finding
    assert "python -m experiments.analyze --study=responses" in finding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gradient"}, "nearest: gradients"),
        ({"name": "responses"}, "output: untrained nets have no folder"),
        ({"name": "responses", "output": "x"}, "give nets: --workdir=RUN"),
        ({"name": "responses", "workdirs": ["nowhere"]}, "no run in this folder"),
        ({"name": "responses", "configs": ["configs/digit.py"], "output": "x"}, "digits.py"),
        ({"name": "responses", "settings": ["example=3"]}, "nearest: examples"),
        ({"name": "responses", "settings": ["examples=a"]}, "examples is a int"),
        ({"name": "responses", "settings": ["examples"]}, "expected option=value"),
        ({"name": "responses", "settings": ["examples=9999"]}, "test of digits has 64"),
        ({"name": "responses", "settings": ["split=validation"]}, "allowed are train, test"),
        ({"name": "landscape", "settings": ["points=4"]}, "points=4: must be odd"),
        ({"name": "constructed", "settings": ["depth=5"]}, "depth=5: must be above 5"),
        ({"name": "iterations", "settings": ["times=1"]}, "times=1"),
    ],
)
def test_wrong_input_is_one_line(sweep, tmp_path, monkeypatch, arguments, message):
    if "settings" in arguments:
        arguments = {**arguments, "workdirs": [str(sweep / "plain")]}
    with pytest.raises(InputError, match=message) as raised:
        study(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_stop_during_a_training_study_exits_with_its_code_and_the_same_command_goes_on(sweep):
    asked = ["--study=iterations", f"--workdir={sweep / 'plain'}", "--set=times=500"]
    command_line = [sys.executable, "-m", "experiments.analyze", *asked]
    process = subprocess.Popen(command_line)
    log = sweep / "plain-500x" / "metrics.jsonl"
    while not log.exists() or not log.read_text():
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == command.STOPPED
    assert not (sweep / "plain-500x" / "summary.json").exists()
    stopped_at = runs.read_run(sweep / "plain-500x").rows[-1]["step"]
    process = subprocess.Popen(command_line)
    while runs.read_run(sweep / "plain-500x").rows[-1]["step"] <= stopped_at:
        assert process.poll() is None, "it did not go on"
        time.sleep(0.1)
    process.terminate()
    assert process.wait() == command.STOPPED


def test_lesions_want_a_trained_net(tmp_path):
    with pytest.raises(InputError, match="plain-8 is not trained"):
        study("lesions", configs=["configs/digits.py:plain-8"], output=str(tmp_path))


def test_studies_of_several_runs_go_to_their_common_folder(sweep):
    written, finding = study(
        "responses", [str(sweep / "plain"), str(sweep / "resnet")], settings=[FEW]
    )
    assert written == sweep / "analysis" / "responses"
    assert "plain-5" in finding
    assert "resnet-5" in finding


def test_figures_are_the_same_bytes_every_time(sweep):
    """They are drawn from the rows alone."""
    name, workdirs = "responses", [str(sweep / "plain")]
    pictures = []
    for _ in range(2):
        written, _ = study(name, workdirs, settings=[FEW])
        pictures.append((written / "figure.svg").read_bytes())
    assert pictures[0] == pictures[1]
    assert written == sweep / "plain" / "analysis" / name
