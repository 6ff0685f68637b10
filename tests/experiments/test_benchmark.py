"""The command that measures speed, and what is drawn of it."""

import json
import os
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from configs import cifar10
from resnet_jax.reporting import cost
from resnet_jax.runs import Recipe
from resnet_jax.runtime import parallel, setup
from resnet_jax.training import speed

CONFIG = "resnet-8,model.width=4,model.bn_group_size=8,num_devices=1,batch_size=8"


def measure(**options):
    recipe = Recipe.from_config(cifar10.get_config(CONFIG))
    recipe = recipe.replace(deterministic=options.pop("deterministic", True))
    return speed.measure(recipe, (8, 8, 3), 10, 20, repeats=2, seconds=0.01, **options)


@pytest.fixture(scope="module")
def found():
    return {"batch_size": 8, **measure(), "cached_compile_seconds": 0.1}


@pytest.mark.slow
def test_measurement_counts_what_it_says(found):
    assert found["depth"] == 8
    assert found["flops_per_image"] == 6 * found["multiply_adds"]
    for rates in (found["train_images_per_second"], found["evaluate_images_per_second"]):
        assert len(rates) == 2
        assert min(rates) > 0
    assert found["matmul_flops_per_second"] > 1e8
    assert found["copy_bytes_per_second"] > 1e7
    weights = 4 * 2 * 900  # bytes of parameters and momentum at least
    assert weights < found["program_bytes"] < found["process_peak_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", parallel.ENGINES)
def test_step_is_timed_on_every_engine(engine):
    recipe = Recipe.from_config(cifar10.get_config(CONFIG)).replace(
        num_devices=2, parallel=engine, **{"model.bn_group_size": 4}
    )
    timed = speed.TimedStep(recipe, (8, 8, 3), 10, num_examples=8)
    assert timed.train() == 8 * timed.steps
    assert timed.state.step == 2 * timed.steps


@pytest.mark.weekly
def test_process_that_measures_uses_the_cores_that_a_run_does():
    recipe = Recipe.from_config(cifar10.get_config(CONFIG)).replace(
        num_devices=None, **{"model.bn_group_size": 4}
    )
    asked = {"recipe": recipe.to_dict(), "image_shape": [8, 8, 3], "num_classes": 10}
    asked |= {"num_examples": 8, "repeats": 1, "seconds": 0.01}
    without = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    done = subprocess.run(
        [sys.executable, "-m", "resnet_jax.training.speed", json.dumps(asked)],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name not in without},
    )
    assert json.loads(done.stdout)["devices"] == min(2, setup.num_cores())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matrices_whose_product_is_timed_are_not_constant(dtype, monkeypatch):
    multiplied = []

    def seconds(function, matrices):
        multiplied.append(matrices)
        return 1.0

    monkeypatch.setattr(speed, "_median_seconds", seconds)
    assert speed.matmul_rate(parallel.make_mesh(2, 2, 2), dtype) == 2 * 2 * 1024**3
    (matrices,) = multiplied
    assert (matrices.shape, matrices.dtype) == ((2, 1024, 1024), dtype)
    assert matrices.astype("float32").std() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_start_alone_is_timed_without_the_rest(found):
    start = measure(start_only=True)
    assert set(start) == {key for key in start if key.endswith("_seconds")} | {"model"}
    assert start["compile_seconds"] > 0


def test_cost_is_told_from_shallow_to_deep(found):
    deeper = {**found, "model": "resnet-80", "depth": 80, "compile_seconds": 7.0}
    table = cost.table([deeper, {**found, "compile_seconds": 2.0}])
    assert table["depth"].tolist() == [8, 80]
    first, *sentences = cost.summarize(table)
    assert first == "From resnet-8 to resnet-80, 10.0 times as deep:"
    assert "Seconds to compile: 2 to 7, 3.5 times." in sentences


def test_costs_have_plain_numbers_on_their_axes(found):
    table = cost.table([{**found, "depth": 20}, {**found, "depth": 200}])
    axes = Figure().add_subplot()
    cost.draw(axes, table, "step_seconds")
    axes.figure.draw_without_rendering()
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert any(texts)
    assert all(not text or float(text.replace(",", "")) for text in texts)


@pytest.mark.slow
def test_command_leaves_numbers_figure_and_finding(tmp_path):
    arguments = ["--sweep=depth", "--models=resnet-8,resnet-14", "--batch_size=8", "--repeats=1"]
    arguments += ["--seconds=0.1", "--image_size=8", "--set=model.bn_group_size=8"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", *arguments, f"--output={tmp_path}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "From resnet-8 to resnet-14" in done.stdout
    assert "batch 8 of 8×8 images on" in done.stdout.replace("\n", " ")
    assert "deterministic=True;" in done.stdout.replace("\n", " ")
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert [one["model"] for one in written] == ["resnet-8", "resnet-14"]
    assert (tmp_path / "data.csv").read_text().count("resnet-") == 2
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "--sweep=depth" in (tmp_path / "finding.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "shape", "batch"),
    [
        ("--config=configs/imagenet.py --set=batch_size=64", [224, 224, 3], 64),
        ("--config=configs/digits.py", [8, 8, 1], 128),
        ("", [32, 32, 3], 128),
        ("--config=configs/digits.py --image_size=16 --batch_size=64", [16, 16, 3], 64),
    ],
)
def test_images_and_batches_are_those_of_the_config(arguments, shape, batch):
    code = (
        "import json, sys; from experiments import benchmark;"
        "benchmark._in_a_process = lambda model, asked, cache: {**asked, 'compile_seconds': 1};"
        "benchmark.flags.FLAGS(sys.argv); print(json.dumps(benchmark._measure('resnet-20')))"
    )
    asked = [sys.executable, "-c", code, *arguments.split()]
    found = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert found["image_shape"] == shape
    assert found["batch_size"] == found["recipe"]["batch_size"] == batch
    assert found["num_examples"] == 8 * batch


@pytest.mark.parametrize("value", [True, False])
def test_rates_come_with_whether_operations_were_deterministic(value):
    assert measure(deterministic=value)["deterministic"] is value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models=resnet-21"], "resnet-21"),
        (["--sweep=depth"], "--sweep draws a figure; name the folder"),
        (["--models=resnet-8", "--set=width"], "expected field=value"),
        (["--models=resnet-8", "--set=batch=3"], "config field"),
    ],
)
def test_mistake_is_one_line(arguments, message, run_command):
    done = run_command("benchmark", *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
