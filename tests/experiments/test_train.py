"""A run ends with the same bits however often it was stopped, and says truly how it ended."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import digits
from resnet_jax import runs
from resnet_jax.errors import STOPPED, WRONG_INPUT, InputError
from resnet_jax.runs import Recipe, arguments, load_recipe
from resnet_jax.runtime.multihost import StopSignals
from resnet_jax.training import inference, trainer
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.run import _notes_on_data, train
from resnet_jax.training.trainer import build

TINY = (
    "resnet-8,batch_size=16,num_steps=12,log_every=4,evaluate_every=6,checkpoint_every=3,"
    "model.width=4,model.bn_group_size=8,dataset.train=train[:200],dataset.test=test[:50]"
)
NOTE = "each batch of batch_size=16 holds"
TIMES = ("seconds", "images_per_second", "wall_seconds")


def tiny(**fields):
    return Recipe.from_config(arguments.update(digits.get_config(TINY), fields))


def final_state(workdir):
    experiment = build(load_recipe(workdir))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(experiment.state_template())


def timeless(record):
    return {key: value for key, value in record.items() if key not in TIMES}


def assert_same_run(a, b):
    """The same bits in the last state, and the same figures apart from times."""
    jax.tree.map(np.testing.assert_array_equal, final_state(a), final_state(b))
    first, second = runs.read_run(a), runs.read_run(b)
    assert [timeless(row) for row in first.rows] == [timeless(row) for row in second.rows]
    assert timeless(first.summary) == timeless(second.summary)


@contextlib.contextmanager
def stopping_after(questions):
    """Within, a run is asked to stop after so many chunks."""
    asked = iter(range(questions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "asked", lambda self: next(asked, None) is None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert train(tiny(), workdir) == 0
    return workdir


def test_run_leaves_the_files_of_the_contract(finished):
    run = runs.read_run(finished)
    assert (run.status, run.problems) == ("completed", [])
    assert run.config["model"]["name"] == "resnet-8"
    assert run.info["versions"]["jax"] == jax.__version__
    at = lambda split: [row["step"] for row in run.rows if row["split"] == split]
    assert at("train") == [4, 8, 10, 12]  # the last row begins with the last epoch
    assert at("test") == [6, 12]
    assert any((finished / "tensorboard").iterdir())
    assert run.summary["num_steps"] == 12
    expected = "status model dataset seed num_params train_loss train_error test_loss test_error"
    for key in [*expected.split(), "images_per_second", "wall_seconds", "multiply_adds"]:
        assert run.summary[key] is not None, key


@pytest.mark.slow
def test_line_before_the_first_step_says_what_is_trained_on_what_and_where(tmp_path, capsys):
    train(tiny(num_devices=1, **{"dataset.flip": True}), tmp_path)
    before, _ = capsys.readouterr().out.split("\nstep", 1)
    *_, described, warm_up, flip = before.splitlines()
    assert "note: dataset.flip=True mirrors digits" in flip + warm_up
    assert described == (
        "resnet-8 (4,934 parameters) on digits: 200 train, 50 test images of 8×8×1, 10 classes; "
        "1 x cpu; compiling"
    )


@pytest.mark.slow
def test_warm_up_that_has_not_ended_is_told_once(tmp_path, capsys):
    fields = {"schedule.warmup": "until_error", "schedule.warmup_error": 1e-6}
    train(tiny(**fields, evaluate_every=4), tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warming up" in line]
    assert line.startswith("step 4: still warming up at a learning rate of 0.01, for the training")


def test_same_config_gives_the_same_bits(finished, tmp_path):
    train(tiny(), tmp_path)
    assert_same_run(tmp_path, finished)


def test_other_seed_gives_another_run(finished, tmp_path):
    train(tiny(seed=1), tmp_path)
    assert runs.read_run(tmp_path).summary["train_loss"] != pytest.approx(
        runs.read_run(finished).summary["train_loss"]
    )


def test_seeds_are_arguments_of_one_program():
    """Else the compilation cache has nothing for a sweep's second seed."""

    def program(seed: int) -> str:
        run = build(tiny(seed=seed))
        lowered = run.make_run_steps().lower(run.initial_state(), run.splits["train"], 0, 1)
        return lowered.as_text()

    assert program(0) == program(1)


@pytest.mark.parametrize(("count", "is_said"), [(5, True), (15, True), (16, False)])
def test_batch_that_holds_images_twice_is_said(count, is_said):
    experiment = build(tiny(**{"dataset.train": f"train[:{count}]"}))
    assert [line[: len(NOTE)] for line in _notes_on_data(experiment)] == is_said * [NOTE]


@pytest.mark.parametrize(("error", "told"), [(0.9, "of .9 would be: 0.8"), (0.89, "")])
def test_warm_up_that_guessing_would_end_is_said(error, told):
    fields = {"schedule.warmup": "until_error", "schedule.warmup_error": error}
    notes = _notes_on_data(build(tiny(**fields)))
    assert len(notes) == bool(told)
    assert "".join(notes).endswith(told)


@pytest.mark.parametrize("chunks", [1, 4, 6])
def test_run_stopped_at_any_step_and_continued_equals_an_uninterrupted_one(
    chunks, finished, tmp_path
):
    with stopping_after(chunks - 1):
        assert train(tiny(), tmp_path) == STOPPED
    assert runs.read_run(tmp_path).status == "partial"
    assert train(tiny(), tmp_path) == 0
    assert_same_run(tmp_path, finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        "model.shortcut=constant_scaling,model.shortcut_scale=0.5,optimizer.max_grad_norm=1.0,"
        "optimizer.layer_decay=0.9",
        "model.norm=none,model.initialization=fixup",
        *(
            pytest.param(fields, marks=pytest.mark.weekly)
            for fields in (
                "model.initialization=skipinit",
                "model.name=plain-8,model.initialization=looks_linear",
                "model.name=plain-8,model.parameterization=dirac",
                "model.name=plain-8,model.parameterization=repvgg",
                "model.name=plain-8,model.norm=none,model.initialization=delta_orthogonal,"
                "model.activation=tailored_relu,model.tat_eta=0.5",
            )
        ),
    ],
)
def test_cure_that_is_stopped_and_continued_equals_an_uninterrupted_one(fields, tmp_path):
    fast = {"num_steps": 6, "num_devices": 1, "dataset.test": ""}
    config = tiny(**arguments.split(fields, "")[1], **fast)
    assert train(config, tmp_path / "whole") == 0
    with stopping_after(3):
        assert train(config, tmp_path / "stopped") == STOPPED
    assert train(config, tmp_path / "stopped") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_line_torn_by_a_kill_does_not_keep_a_run_from_resuming(finished, tmp_path):
    with stopping_after(5):
        train(tiny(), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "spl')
    assert train(tiny(), tmp_path) == 0
    assert_same_run(tmp_path, finished)


def without_log(finished, folder, step, *rows):
    """A copy of a run as if it had been killed at a step, of whose log some steps are left."""
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] in rows]
    (folder / "metrics.jsonl").write_text("".join(kept))
    return folder


@pytest.mark.parametrize(("step", "rows", "lost"), [(12, (), 12), (12, (4, 8), 12), (9, (6,), 8)])
def test_run_without_the_log_of_its_end_is_refused(finished, tmp_path, step, rows, lost):
    folder = without_log(finished, tmp_path / "run", step, *rows)
    before = {path: path.read_bytes() for path in folder.glob("*.json*")}
    with pytest.raises(InputError, match=rf"metrics.jsonl: the row of step {lost} is missing,"):
        train(tiny(), folder)
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == before


def test_run_that_has_lost_its_test_error_is_refused_until_its_last_steps_are_made_again(
    finished, tmp_path
):
    folder = without_log(finished, tmp_path / "run", 12, *range(13))
    whole = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(whole[-1])["split"] == "test"
    (folder / "metrics.jsonl").write_text("".join(whole[:-1]))
    with pytest.raises(InputError, match=r"metrics.jsonl: the test row of step 12 is missing,"):
        train(tiny(), folder)
    shutil.rmtree(folder / "checkpoints" / "12")
    assert train(tiny(), folder) == 0
    assert_same_run(folder, finished)


def test_run_that_has_lost_earlier_rows_says_so_and_ends_alike(tmp_path, capsys):
    recipe, whole = tiny(max_to_keep=4), tmp_path / "whole"
    train(recipe, whole)
    folder = without_log(whole, tmp_path / "run", step=6)
    assert train(recipe, folder) == 0
    assert "metrics.jsonl: the row of step 4 is missing; the run's" in capsys.readouterr().out
    (folder / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text())
    assert_same_run(whole, folder)


def test_run_that_has_lost_its_checkpoints_says_that_it_begins_anew(finished, tmp_path, capsys):
    folder = without_log(finished, tmp_path / "run", 0, 4, 6, 8)
    assert train(tiny(), folder) == 0
    told = capsys.readouterr().out
    assert "holds none after step 0, though the run had come to step 8; it begins anew" in told
    assert_same_run(finished, folder)
    assert train(tiny(), tmp_path / "new") == 0
    assert "begins anew" not in capsys.readouterr().out


def test_run_under_jaxs_float64_is_refused_and_no_checkpoint_is_called_damaged(finished, tmp_path):
    folder = without_log(finished, tmp_path / "run", 9, 4, 6, 8)
    for ask in (
        lambda: train(tiny(), folder),
        lambda: train(tiny(), tmp_path / "new"),
        lambda: inference.evaluate(finished, "test"),
    ):
        with (
            jax.enable_x64(True),
            pytest.raises(InputError, match="JAX_ENABLE_X64=1: weights and checkpoints are float3"),
        ):
            ask()
    assert not (tmp_path / "new").exists()


def test_folder_of_other_runs_is_refused_and_stays_as_it_is(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs" / "one")
    with pytest.raises(InputError, match=r"holds folders of runs \(one\); give this one a folder"):
        train(tiny(), tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]


def test_damaged_config_is_named_and_nothing_is_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        train(tiny(), tmp_path)
    assert (tmp_path / "config.json").read_text() == "{"


LONG = {"num_steps": 200, "checkpoint_every": 50}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A run that a signal can reach."""
    workdir = tmp_path_factory.mktemp("long") / "run"
    assert train(tiny(**LONG), workdir) == 0
    return workdir


@pytest.mark.slow
def test_disk_that_fills_up_is_one_line_and_the_same_run_resumes(long, tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # A file like others.
    process = start(tmp_path / "a", **LONG, **pipes)
    next(process.stdout)
    # From now on no file can grow, as if a quota were used up.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == WRONG_INPUT
    assert errors.count("\n") == 1, errors
    assert "File too large; fix that and rerun the command" in errors
    assert runs.read_run(tmp_path / "a").status == "partial"
    assert train(tiny(**LONG), tmp_path / "a") == 0
    assert_same_run(tmp_path / "a", long)


def test_finished_run_is_left_alone(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert train(tiny(), finished) == 0
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_folder_of_another_config_is_refused_naming_the_fields(finished):
    with pytest.raises(InputError, match=r"momentum: 0.9, now 0.5; seed: 0, now 1") as raised:
        train(tiny(**{"seed": 1, "optimizer.momentum": 0.5}), finished)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_run_continues_on_another_number_of_devices(finished, tmp_path):
    with stopping_after(5):
        train(tiny(num_devices=1), tmp_path)
    assert train(tiny(num_devices=2), tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 4, pytest.param(8, marks=pytest.mark.weekly)])
def test_curve_does_not_depend_on_the_number_of_devices(num_devices, finished, tmp_path):
    assert runs.read_run(finished).info["devices"].startswith("2 x")
    train(tiny(num_devices=num_devices), tmp_path)
    losses = [[row["loss"] for row in runs.read_run(path).rows] for path in (finished, tmp_path)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.slow
def test_diverging_run_is_a_result(tmp_path):
    config = tiny(
        **{"schedule.learning_rate": 1e30, "model.norm": "none", "model.bn_group_size": None}
    )
    assert train(config, tmp_path) == 0
    summary = runs.read_run(tmp_path).summary
    assert summary["status"] == "diverged"
    assert 1 < summary["diverged_at"] <= 4
    assert summary["test_error"] is None
    assert train(config, tmp_path) == 0  # It is finished, not to be tried again.


@pytest.mark.slow
def test_bug_is_recorded_as_a_bug_and_not_as_a_result(tmp_path, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("resnet_jax.training.trainer.Experiment.intervals", broken)
        with pytest.raises(ZeroDivisionError):
            train(tiny(), tmp_path)
    assert runs.read_run(tmp_path).status == "failed"
    assert "a bug" in (tmp_path / "error.txt").read_text()
    assert train(tiny(), tmp_path) == 0
    assert runs.read_run(tmp_path).status == "completed"


@pytest.mark.slow
def test_run_that_keeps_the_test_set_for_later_is_complete_without_it(tmp_path):
    config = tiny(**{"dataset.validation": "train[200:240]", "dataset.test": ""})
    assert train(config, tmp_path) == 0
    summary = runs.read_run(tmp_path).summary
    assert summary["test_error"] is None
    assert summary["validation_error"] is not None


@pytest.mark.slow
def test_plateau_watches_the_validation_split_and_lowers_the_rate(tmp_path):
    config = tiny(
        **{
            "dataset.train": "train[:100]",
            "dataset.validation": "train[100:140]",
            "schedule.name": "plateau",
            "schedule.patience": 1,
            "evaluate_every": 1,
            "log_every": 1,
            "optimizer.weight_decay": 0.0,
            "schedule.learning_rate": 1e-9,
        }
    )
    train(config, tmp_path)
    rows = runs.read_run(tmp_path).rows
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    rates = [row["learning_rate"] for row in rows if row["split"] == "train"]
    assert rates[-1] < 0.2 * rates[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"model.dtype": "bfloat16"},
        {"grad_accum_steps": 2},
        pytest.param({"model.shortcut": "dropout"}, marks=pytest.mark.weekly),
        {"steps_per_dispatch": 3},
        {"label_smoothing": 0.1, "optimizer.nesterov": True, "schedule.name": "cosine"},
    ],
)
def test_every_kind_of_training_runs_to_its_end(fields, tmp_path):
    assert train(tiny(**fields), tmp_path) == 0
    assert runs.read_run(tmp_path).summary["status"] == "completed"


@pytest.mark.slow
def test_accumulation_draws_the_same_curve(finished, tmp_path):
    train(tiny(grad_accum_steps=2), tmp_path)
    losses = [[row["loss"] for row in runs.read_run(path).rows] for path in (finished, tmp_path)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def start(workdir, num_steps, checkpoint_every=3, **kwargs):
    flags = [f"--config.num_steps={num_steps}", f"--config.checkpoint_every={checkpoint_every}"]
    argv = [sys.executable, "-m", "experiments.train", f"--config=configs/digits.py:{TINY}"]
    return subprocess.Popen([*argv, f"--workdir={workdir}", *flags], **kwargs)


def test_config_older_than_some_fields_is_read_as_far_as_its_first_mistake(run_command, tmp_path):
    (tmp_path / "older.py").write_text(
        "from configs import digits\n"
        "def get_config(name):\n"
        "    config = digits.get_config(name)\n"
        "    del config.deterministic, config.onednn\n"
        "    return config\n"
    )
    config = f"--config={tmp_path / 'older.py'}:resnet-8,batch_size=0"
    done = run_command("train", config, f"--workdir={tmp_path / 'run'}")
    assert done.stderr == "error: batch_size=0: must be at least 1\n"
    assert done.code == WRONG_INPUT


def test_fields_that_the_others_leave_unused_are_told(run_command, tmp_path):
    config = f"--config=configs/digits.py:{TINY},schedule.patience=3,num_devices=64"
    unused = "--config.schedule.warmup_error=0.5"
    done = run_command("train", config, f"--workdir={tmp_path}", "--config.seed=1", unused)
    assert done.code == WRONG_INPUT  # for num_devices, which is looked at later
    assert done.stdout.splitlines() == [
        "note: schedule.patience: has no effect with schedule.name='steps'",
        "note: schedule.warmup_error: has no effect with schedule.warmup='linear'",
    ]


@pytest.mark.slow
def test_terminated_process_saves_exits_with_its_own_code_and_resumes(long, tmp_path):
    process = start(tmp_path / "a", **LONG, stdout=subprocess.PIPE, text=True)
    next(process.stdout)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == STOPPED
    assert "saved; rerun the command to resume" in output
    assert train(tiny(**LONG), tmp_path / "a") == 0
    assert_same_run(tmp_path / "a", long)


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tmp_path):
    first = start(tmp_path, num_steps=2000, stdout=subprocess.PIPE)
    next(iter(first.stdout))
    with pytest.raises(InputError, match="another process is training there"):
        train(tiny(num_steps=2000), tmp_path)
    first.terminate()
    first.communicate()


@pytest.mark.weekly
def test_run_killed_at_twenty_random_instants_ends_with_the_same_bits(tmp_path):
    moments = random.Random(0)
    kills = 0
    while kills < 20:
        process = start(tmp_path / "killed", 1500, stdout=subprocess.PIPE)
        if kills % 2:
            next(iter(process.stdout))  # Half of the kills strike in training, half anywhere.
            time.sleep(moments.uniform(0, 1))
        else:
            time.sleep(moments.uniform(0, 10))
        assert process.poll() is None, "the run ended before it was killed often enough"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    for name in ("killed", "undisturbed"):
        assert start(tmp_path / name, 1500, stdout=subprocess.DEVNULL).wait() == 0
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")


def test_evaluation_of_a_checkpoint_repeats_the_runs_own_figures(finished, run_command):
    figures = json.loads(run_command("evaluate", f"--workdir={finished}").stdout)
    summary = runs.read_run(finished).summary
    assert (figures["step"], figures["examples"]) == (12, 50)
    assert figures["error"] == pytest.approx(summary["test_error"])
    assert figures["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)


def test_evaluation_takes_any_split_and_checkpoint(finished, run_command):
    done = run_command("evaluate", f"--workdir={finished}", "--split=train", "--step=9")
    figures = json.loads(done.stdout)
    assert (figures["split"], figures["step"], figures["examples"]) == ("train", 9, 200)


@pytest.mark.parametrize(
    ("periods", "steps"),
    [((20, 1000, 1000), 20), ((100, 1000, 500), 100), ((250, 1000, 1000), 50),
     ((100, 391, 1000), 100), ((1000, 5000, 1000), 100), ((5, 100, 100), 100)],
)  # fmt: skip
def test_calls_divide_what_lies_between_two_events_where_they_can(periods, steps):
    assert trainer._steps_per_call(*periods) == steps
