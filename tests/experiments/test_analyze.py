"""One command a study: on runs and untrained nets it leaves data, a figure and a finding."""

import csv
import dataclasses
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
from resnet_jax import runs
from resnet_jax.errors import STOPPED, WRONG_INPUT, InputError
from resnet_jax.reporting import write_report
from resnet_jax.runs import Recipe
from resnet_jax.studies import iterations, networks, sharpness, study
from resnet_jax.studies.identity_construction import deepened
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
    "identity_construction": ("plain", [FEW, "steps=2", "depth=8"]),
    "iterations": ("plain", ["times=2"]),
    "lesions": ("resnet", [FEW, "repeats=1", "path_examples=2"]),
    "shattering": ("resnet", [FEW, "depths=5", "seeds=2"]),
    "landscape": ("resnet", [FEW, "points=3"]),
    "jacobian": ("resnet", [FEW, "places=2"]),
    "growth": ("plain", [FEW]),
    "shortcuts": ("resnet", [FEW]),
    "sharpness": ("plain", [FEW, "steps=2", "depth=8", "rates=0.01", "noise=0.1"]),
}


def recipe_of(text):
    return Recipe.from_config(digits.get_config(text))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder with two runs: plain-5 and resnet-5."""
    folder = tmp_path_factory.mktemp("sweep")
    for name in ("plain", "resnet"):
        run.train(recipe_of(TINY.format(name)), folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.weekly] * hasattr(study.find(name), "TRAINS"))
        for name in study.names()
    ],
)
def test_study_of_a_run_leaves_data_figure_and_finding(sweep, name):
    run, settings = ASKED[name]
    written, finding = study.run(name, [str(sweep / run)], output=str(sweep), settings=settings)
    assert written == sweep / "analysis" / name
    with (written / "data.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["network"] and row["family"] for row in rows)
    assert "<svg" in (written / "figure.svg").read_text()
    assert (written / "figure.png").read_bytes().startswith(b"\x89PNG")
    text = (written / "finding.md").read_text()
    assert text.startswith(finding)
    assert "nan" not in finding
    report = write_report([sweep], sweep / "report")
    assert name.replace("_", " ").capitalize() in report.index.read_text()


@pytest.mark.slow
def test_notebook_lines_of_the_documentation_run(sweep, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/measurements.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    shutil.copytree(sweep / "plain", tmp_path / "runs/degradation/plain-56-seed0")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    assert names["signals"].ratio > 0
    assert names["errors"].shape == (len(names["model"].block_names),)


@pytest.mark.weekly
def test_scratch_is_trained_as_long_as_the_shallow_net_and_the_built_one_together(sweep, tmp_path):
    run, settings = ASKED["identity_construction"]
    study.run("identity_construction", [str(sweep / run)], output=str(tmp_path), settings=settings)
    with (tmp_path / "analysis/identity_construction/data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "training"]
    at = {
        start: [int(row["at_step"]) for row in rows if row["start"] == start]
        for start in ("constructed", "shallow", "scratch")
    }
    assert at == {"constructed": [9, 10], "shallow": [9, 10], "scratch": list(range(1, 11))}


@pytest.mark.parametrize("name", ["identity_construction", "sharpness"])
def test_training_that_moves_nothing_stays_however_hard_its_batches_are(
    name, sweep, tmp_path, monkeypatch
):
    """The optimiser's error is of augmented batches, and says nothing of where it ends."""
    module, (run, settings) = study.find(name), ASKED[name]
    curve = [{"at_step": step, "loss": 9.0, "error": 0.99} for step in (1, 2)]
    monkeypatch.setattr(module, "train_on", lambda network, weights, *_: (weights, curve))
    monkeypatch.setattr(sharpness, "largest_eigenvalue", lambda *_: 1.0)
    _, finding = study.run(name, [str(sweep / run)], output=str(tmp_path), settings=settings)
    assert "stays" in finding
    assert "leaves" not in finding


@pytest.mark.slow
def test_paths_have_every_length(sweep, tmp_path):
    study.run("lesions", [str(sweep / "resnet")], output=str(tmp_path),
              settings=[FEW, "repeats=1", "path_examples=2", "over_training=True"])  # fmt: skip
    with (tmp_path / "analysis/lesions/data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "path"]
    assert [int(row["step"]) for row in rows] == [0] * 4 + [4] * 4 + [8] * 4
    assert [float(row["length"]) for row in rows] == [0, 1, 2, 3] * 3
    assert sum(float(row["share"]) for row in rows) == pytest.approx(3)


@pytest.mark.slow
def test_run_without_its_checkpoints_is_refused_unless_untrained_weights_are_asked_for(
    sweep, tmp_path
):
    shutil.copytree(sweep / "plain", tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain/checkpoints")
    for name in ("responses", "gradients", "shattering"):
        with pytest.raises(InputError, match=r"no checkpoint of this run is there.*--untrained"):
            study.run(name, [str(tmp_path / "plain")], settings=[FEW])
    _, finding = study.run("responses", [str(tmp_path / "plain")], settings=[FEW], untrained=True)
    assert "plain-5" in finding


def test_first_weights_that_another_run_gave_are_never_replaced_by_random_ones(sweep):
    [network] = networks.collect([str(sweep / "plain")])
    recipe = network.recipe.replace(init_from="elsewhere")
    network = dataclasses.replace(network, recipe=recipe)
    assert 0 not in network.steps
    with pytest.raises(InputError, match="were those of 'elsewhere' and are no longer kept"):
        network.at(0)


def test_runs_of_two_seeds_are_one_network_and_a_copy_of_one_is_refused(sweep, tmp_path):
    shutil.copytree(sweep / "plain", tmp_path / "copy")
    workdirs = [str(sweep / "plain"), str(tmp_path / "copy")]
    with pytest.raises(InputError, match=r"one seed \(0\) of plain-5"):
        networks.collect(workdirs)
    text = (tmp_path / "copy/config.json").read_text()
    (tmp_path / "copy/config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert len({network.label for network in networks.collect(workdirs)}) == 1


def test_label_says_in_what_runs_of_one_network_differ(tmp_path):
    for folder, fields in {
        "a": "seed=0",
        "b": "seed=1",
        "c": "optimizer.max_grad_norm=0.1",
        "d": "schedule.warmup=linear,schedule.warmup_steps=20",
        "e": "model.activation=tanh,parallel=pmap",
    }.items():
        recipe = recipe_of(f"plain-20,schedule.warmup=none,schedule.warmup_steps=0,{fields}")
        finished(tmp_path / folder, recipe)
    assert [network.label for network in networks.collect([str(tmp_path)])] == [
        "plain-20",
        "plain-20",
        "plain-20, max_grad_norm=0.1",
        "plain-20, warmup=linear",
        "plain-20, activation=tanh",
    ]


def finished(workdir, recipe) -> int:
    """Writes a run's folder as if it had been trained."""
    errors = {"train_error": 0.5, "test_error": 0.5}
    runs.write_json(workdir / "config.json", {"config": recipe.to_dict()})
    row = {"step": recipe.num_steps, "split": "train", "error": 0.5}
    runs.write_text(workdir / "metrics.jsonl", json.dumps(row) + "\n")
    runs.write_json(workdir / "summary.json", {"status": "completed", **errors})
    return 0


@pytest.mark.parametrize("steps", [(10, 30), (10,)])
def test_lengths_are_compared_within_one_net_not_one_name(steps, tmp_path, monkeypatch):
    trained = []
    train = lambda recipe, path: trained.append(path) or finished(path, recipe)
    monkeypatch.setattr(iterations, "train", train)
    for activation in ("relu", "tanh"):
        for length in steps:
            fields = f"plain-20,num_steps={length},model.activation={activation}"
            finished(tmp_path / f"{activation}-{length}", recipe_of(fields))
    workdirs = [str(path) for path in tmp_path.iterdir()]
    _, finding = study.run("iterations", workdirs, output=str(tmp_path), settings=["times=3"])
    longer = [tmp_path / name / "analysis/iterations/3x" for name in ("relu-10", "tanh-10")]
    assert sorted(trained) == ([] if len(steps) == 2 else longer)
    assert len(runs.find_runs(tmp_path)) == 2 * len(steps)  # Reports show the sweep as it was.
    assert finding.count("50.0% (one seed) after 10 steps and 50.0% (one seed) after 30") == 2
    assert "plain-20, activation=tanh has a training error" in finding


def test_lengths_of_other_recipes_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(iterations, "train", lambda recipe, path: finished(path, recipe))
    for number, extra in enumerate(("", "", ",optimizer.layer_decay=0.8")):
        seed = min(number, 1)
        finished(tmp_path / str(number), recipe_of(f"plain-20,num_steps=10,seed={seed}{extra}"))
    _, finding = study.run("iterations", [str(tmp_path)], output=str(tmp_path / "out"))
    assert "plain-20 has a training error of 50.0% [50.0%, 50.0%] (2 seeds) after 10" in finding
    assert "plain-20, layer_decay=0.8 has a training error of 50.0% (one seed) after" in finding


def test_untrained_network_is_measured_once_with_each_seed(tmp_path):
    recipes = [recipe_of(f"plain-8,seed={seed}") for seed in range(3)]
    asked = networks.expand(networks.collect([], recipes), seeds=3)
    assert [network.recipe.seed for network in asked] == [0, 1, 2, 3, 4]


def test_what_is_built_from_several_networks_says_from_which(tmp_path):
    for folder, fields in {
        "a": "plain-8",
        "b": "plain-14",
        "c": "plain-14,seed=1",
        "d": "plain-14,seed=1,optimizer.max_grad_norm=0.1",
    }.items():
        finished(tmp_path / folder, recipe_of(fields))
        (tmp_path / folder / "checkpoints" / "5").mkdir(parents=True)
    found = networks.collect([str(tmp_path)])
    assert [deep.label for _, deep in deepened(found, 20, "sharpness")] == [
        "plain-20, from plain-8",
        "plain-20, from plain-14",
        "plain-20, from plain-14",
        "plain-20, max_grad_norm=0.1",
    ]
    assert [deep.label for _, deep in deepened(found[:1], 20, "sharpness")] == ["plain-20"]


def test_folder_that_is_no_run_is_one_line_before_a_training_study(tmp_path):
    runs.write_json(tmp_path / "config.json", {"config": {"seed": 0}})
    with pytest.raises(InputError, match="has no section 'model'"):
        study.run("iterations", [str(tmp_path)])


@pytest.mark.weekly
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
        ({"name": "responses"}, "output: untrained networks have no folder"),
        ({"name": "responses", "output": "x"}, "give networks: --workdir=RUN"),
        ({"name": "responses", "workdirs": ["nowhere"]}, "no run in this folder"),
        ({"name": "responses", "settings": ["example=3"]}, "nearest: examples"),
        ({"name": "responses", "settings": ["examples=a"]}, "examples is a int"),
        ({"name": "responses", "settings": ["examples"]}, "expected option=value"),
        ({"name": "responses", "settings": ["examples=9999"]}, "test of digits has 64"),
        ({"name": "responses", "settings": ["split=validation"]}, "allowed are train, test"),
        ({"name": "landscape", "settings": ["points=4"]}, "points=4: must be odd"),
        ({"name": "identity_construction", "settings": ["depth=5"]}, "depth=5: must be above 5"),
        ({"name": "iterations", "settings": ["times=1"]}, "times=1"),
    ],
)
def test_wrong_input_is_one_line(sweep, tmp_path, monkeypatch, arguments, message):
    if "settings" in arguments:
        arguments = {**arguments, "workdirs": [str(sweep / "plain")]}
    with pytest.raises(InputError, match=message) as raised:
        study.run(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.weekly
def test_stop_during_a_training_study_exits_with_its_code_and_the_same_command_resumes(sweep):
    asked = ["--study=iterations", f"--workdir={sweep / 'plain'}", "--set=times=500"]
    command_line = [sys.executable, "-m", "experiments.analyze", *asked]
    process = subprocess.Popen(command_line)
    longer = sweep / "plain" / "analysis" / "iterations" / "500x"
    log = longer / "metrics.jsonl"
    while not log.exists() or not log.read_text():
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == STOPPED
    assert not (longer / "summary.json").exists()
    stopped_at = runs.read_run(longer).rows[-1]["step"]
    process = subprocess.Popen(command_line)
    while runs.read_run(longer).rows[-1]["step"] <= stopped_at:
        assert process.poll() is None, "it did not resume"
        time.sleep(0.1)
    process.terminate()
    assert process.wait() == STOPPED


def test_config_file_that_is_not_there_is_one_line_with_the_nearest(run_command, tmp_path):
    flags = ["--study=gradients", "--config=configs/digit.py", f"--output={tmp_path}"]
    done = run_command("analyze", *flags)
    assert done.code == WRONG_INPUT
    assert "nearest: digits.py" in done.stderr


def test_lesions_want_a_trained_network(tmp_path):
    with pytest.raises(InputError, match="plain-8 is not trained"):
        study.run("lesions", recipes=[recipe_of("plain-8")], output=str(tmp_path))


def test_studies_of_several_runs_go_to_their_common_folder(sweep):
    written, finding = study.run(
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
        written, _ = study.run(name, workdirs, settings=[FEW])
        pictures.append((written / "figure.svg").read_bytes())
    assert pictures[0] == pictures[1]
    assert written == sweep / "plain" / "analysis" / name
