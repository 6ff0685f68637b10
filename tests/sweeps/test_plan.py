"""A sweep's runs are named, scaled and written down so that nothing is mixed up."""

import json
from pathlib import Path

import pytest

from configs import digits
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments
from resnet_jax.sweeps import plan
from resnet_jax.sweeps.grid import Overrides, Sweep
from resnet_jax.sweeps.run import run as start

NETWORKS = ({"model.name": "plain-20", "seed": 0}, {"model.name": "resnet-20", "seed": 0})


def sweep(*overrides: Overrides, **fields) -> Sweep:
    given = {
        "name": "tiny",
        "title": "Tiny",
        "paper": None,
        "recipe": "other",
        "config": "configs/digits.py",
        "common": {},
        "overrides": overrides or NETWORKS,
        "get_config": digits.get_config,
    }
    return Sweep(**{**given, **fields})


def names(planned: list[plan.PlannedRun]) -> list[str]:
    return [run.name for run in planned]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"model.name": "plain-56", "seed": 3}, "plain-56-seed3"),
        ({"seed": 0, "model.name": "resnet-20", "model.option": "B"}, "resnet-20-option-B-seed0"),
        ({"model.name": "resnet-20", "model.gate_bias": -6.0}, "resnet-20-gate_bias-6"),
        ({"model.name": "resnet-20", "schedule.name": "cosine"}, "resnet-20-schedule-cosine"),
        ({"model.name": "resnet-20", "optimizer.nesterov": True}, "resnet-20-nesterov-True"),
        ({"model.name": "a/../b", "dataset.train": "train[:50%]"}, "a_.._b-train-train_50"),
        ({"model.name": "x", "schedule.boundaries": (0.5, 0.75)}, "x-boundaries-0.5_0.75"),
    ],
)
def test_name_tells_what_is_overridden_and_is_safe_as_a_folder(overrides: Overrides, name: str):
    assert plan.run_name(overrides) == name


def test_arguments_of_a_run_give_its_overrides_back():
    overrides = {
        "model.name": "resnet-20",
        "model.shortcut": "exclusive_gating",
        "model.gate_bias": -6.0,
        "optimizer.nesterov": True,
        "seed": 1,
    }
    (run,) = plan.plan(sweep(overrides))
    path, _, given = run.argument.partition(":")
    assert path == "configs/digits.py"
    name, fields = arguments.split(given, "none")
    assert {"model.name": name, **fields} == overrides
    assert run.config == Recipe.from_config(digits.get_config(given))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schedule.boundaries", (0.2, 0.4)),
        ("dataset.data_dir", "/data/a,b=c"),
        ("loggers", "tensorboard,wandb"),
    ],
)
def test_value_with_a_comma_is_one_value(path: str, value):
    (run,) = plan.plan(sweep({"model.name": "plain-20", path: value, "seed": 3}))
    read = arguments.split(run.argument.partition(":")[2], "none")
    assert read == ("plain-20", {path: value, "seed": 3})


def test_what_all_runs_have_in_common_does_not_enter_names():
    planned = plan.plan(sweep(common={"batch_size": 64}), extra={"dataset.crop_padding": 0})
    assert names(planned) == ["plain-20-seed0", "resnet-20-seed0"]
    assert {run.config.batch_size for run in planned} == {64}
    assert {run.config.dataset.crop_padding for run in planned} == {0}


def test_filter_keeps_runs_by_name():
    assert names(plan.plan(sweep(), pattern="^plain")) == ["plain-20-seed0"]


def test_shorter_runs_log_evaluate_save_and_warm_up_in_proportion():
    common = {"schedule.warmup_steps": 40, "log_every": 1}
    run, _ = plan.plan(sweep(common=common), num_steps=100)
    config = run.config
    assert (config.num_steps, config.log_every) == (100, 1)
    assert (config.evaluate_every, config.checkpoint_every) == (10, 10)
    assert config.schedule.warmup_steps == 10


def test_length_that_is_overridden_shortens_runs_as_num_steps_does():
    overridden, shortened = (
        plan.plan(sweep(), extra={"num_steps": 20}),
        plan.plan(sweep(), num_steps=20),
    )
    assert overridden == shortened
    with pytest.raises(InputError, match=r"^num_steps=20: an override sets it, too"):
        plan.plan(sweep(), num_steps=20, extra={"num_steps": 30})


def test_option_that_a_plain_network_does_not_use_makes_no_second_run(tmp_path: Path):
    planned = plan.plan(sweep(*({"model.name": "plain-20", "model.option": o} for o in "BC")))
    with pytest.raises(InputError, match=r"^plain-20-option-B and plain-20-option-C are the same"):
        plan.check(sweep(), planned, tmp_path, {})


def test_longer_runs_keep_their_periods():
    run, _ = plan.plan(sweep(), num_steps=100_000)
    default = digits.get_config()
    assert run.config.evaluate_every == default.evaluate_every
    assert run.config.schedule.warmup_steps == default.schedule.warmup_steps


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (NETWORKS, {"pattern": "vgg"}, "matches no run; they are plain-20-seed0, resnet-20-seed0"),
        (NETWORKS, {"pattern": "("}, "not a regular expression"),
        (NETWORKS, {"num_steps": 0}, "num_steps=0: must be at least 1"),
        ((NETWORKS[0], NETWORKS[0]), {}, "two runs are called plain-20-seed0"),
        (({"seed": 0},), {}, "without model.name"),
        (({"model.name": "plain-20", "model.optoin": "B"},), {}, "nearest: model.option"),
    ],
)
def test_mistake_in_a_sweep_is_named(overrides: tuple, options: dict, message: str):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        plan.plan(sweep(*overrides), **options)


def test_network_that_does_not_exist_is_found_before_anything_runs():
    with pytest.raises(InputError, match="nearest: plain-20"):
        plan.plan(sweep({"model.name": "plain-21"}))


def test_folder_with_a_run_of_another_config_is_refused(tmp_path: Path):
    run, _ = plan.plan(sweep())
    config = run.config.to_dict() | {"batch_size": 32}
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "config.json").write_text(json.dumps({"config": config}, default=str))
    with pytest.raises(InputError, match=f"{run.name} is a run of another config .*batch_size: 32"):
        plan.check(sweep(), [run], tmp_path, {})


def written(workdir: Path) -> dict:
    return json.loads((workdir / "sweep.json").read_text())


def test_more_seeds_and_other_filters_of_one_sweep_add_up(tmp_path: Path):
    both = plan.plan(sweep())
    elsewhere = {"dataset.data_dir": "/elsewhere"}
    start(sweep(), both[:1], tmp_path, {}, executor="print")
    start(sweep(), both[1:], tmp_path, elsewhere, executor="print")
    assert [run["name"] for run in written(tmp_path)["runs"]] == names(both)
    assert written(tmp_path)["runs"][0]["overrides"] == {"model.name": "plain-20", "seed": 0}


@pytest.mark.parametrize(
    ("other", "command_line", "message"),
    [
        ({"name": "depth"}, {}, "name: 'tiny', now 'depth'"),
        ({"config": "configs/cifar10.py"}, {}, "config: 'configs/digits.py', now"),
        ({}, {"num_steps": 5}, "num_steps: None, now 5"),
    ],
)
def test_folder_of_another_sweep_is_refused(
    tmp_path: Path, other: dict, command_line: Overrides, message: str
):
    start(sweep(), plan.plan(sweep()), tmp_path, {}, executor="print")
    before = written(tmp_path)
    now = sweep(**other)
    with pytest.raises(InputError, match=message):
        start(now, plan.plan(now), tmp_path, command_line, executor="print")
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    ("command_line", "recipe"),
    [
        ({}, "paper"),
        ({"dataset.data_dir": "/elsewhere"}, "paper"),
        ({"num_steps": 100}, "shortened"),
        ({"batch_size": 64}, "other"),
    ],
)
def test_recipe_is_the_papers_only_if_the_command_line_left_it_so(
    command_line: Overrides, recipe: str
):
    assert plan.kept_recipe(sweep(recipe="paper"), command_line) == recipe


@pytest.mark.parametrize("path", ["seed", "model.name"])
def test_override_of_what_the_sweep_varies_is_refused(path: str):
    with pytest.raises(InputError, match=f"^{path}: tiny varies this field"):
        plan.plan(sweep(), extra={path: 3})


def test_length_that_the_sweep_varies_is_not_overridden():
    lengths = ({"model.name": "plain-20", "num_steps": steps} for steps in (10, 20))
    with pytest.raises(InputError, match=r"^num_steps: tiny varies this field"):
        plan.plan(sweep(*lengths), num_steps=5)


def test_length_that_only_other_runs_vary_is_overridden():
    networks = ({"model.name": "plain-20"}, {"model.name": "resnet-20", "num_steps": 20})
    (run,) = plan.plan(sweep(*networks), pattern="^plain", num_steps=5)
    assert run.config.num_steps == 5


@pytest.mark.parametrize(
    "twin",
    [
        {"model.name": "resnet-20", "model.option": "A"},  # what the name stands for
        {"model.name": "resnet-20", "batch_size": digits.get_config().batch_size},
        {"model.name": "resnet-20", "schedule.patience": 9},  # of another schedule
    ],
)
def test_one_run_under_two_names_is_refused(tmp_path: Path, twin: Overrides):
    planned = plan.plan(sweep({"model.name": "resnet-20"}, twin))
    with pytest.raises(InputError, match=f"^resnet-20 and {planned[1].name} are the same run"):
        plan.check(sweep(), planned, tmp_path, {})


def test_another_length_leaves_what_the_sweep_varies_and_what_the_user_sets():
    lengths = ({"model.name": "plain-20", "schedule.warmup_steps": steps} for steps in (100, 400))
    planned = plan.plan(sweep(*lengths), num_steps=50, extra={"log_every": 20})
    found = [(run.config.schedule.warmup_steps, run.config.log_every) for run in planned]
    assert found == [(100, 20), (400, 20)]
    assert {run.config.evaluate_every for run in planned} == {5}
