"""A run's folder is written so that any interruption can be read, and read so that any damage is
named.
"""

import json
import subprocess
import sys

import pytest

from resnet_jax import runs
from resnet_jax.errors import InputError


def row(step, split="train", **figures):
    return {"step": step, "split": split, "loss": 1.0, "error": 0.5, **figures}


def write_run(path, rows=(), summary=None):
    path.mkdir(parents=True, exist_ok=True)
    runs.write_json(
        path / "config.json", {"format": 1, "config": {"seed": 3}, "devices": "1 x cpu"}
    )
    with runs.MetricsLog(path) as log:
        for item in rows:
            log.append(item)
    if summary:
        runs.write_json(path / "summary.json", summary)
    return path


def test_run_is_read_as_it_was_written(tmp_path):
    path = write_run(tmp_path / "a", [row(1), row(2, "test")], {"format": 1, "status": "completed"})
    run = runs.read_run(path)
    assert run.config == {"seed": 3}
    assert run.info["devices"] == "1 x cpu"
    assert run.rows == [row(1), row(2, "test")]
    assert (run.status, run.problems, run.name) == ("completed", [], "a")


def test_status_tells_how_far_a_run_is(tmp_path):
    assert runs.read_run(tmp_path / "none").status == "missing"
    path = write_run(tmp_path / "a")
    assert runs.read_run(path).status == "partial"
    (path / "error.txt").write_text("Traceback")
    assert runs.read_run(path).status == "failed"
    runs.write_json(path / "summary.json", {"format": 1, "status": "diverged"})
    assert runs.read_run(path).status == "diverged"


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path):
    path = write_run(tmp_path / "a", [row(1), row(2)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "split": "tr')
    (path / "config.json").write_text("{")
    run = runs.read_run(path)
    assert run.rows == [row(1), row(2)]
    assert any("metrics.jsonl line 3" in problem for problem in run.problems)
    assert any("config.json" in problem for problem in run.problems)


def test_newer_format_is_refused_by_name(tmp_path):
    path = write_run(tmp_path / "a")
    runs.write_json(path / "config.json", {"format": 99, "config": {}})
    assert "format 99 is newer" in runs.read_run(path).problems[0]


def test_reopened_log_drops_rows_after_its_step_and_a_torn_line(tmp_path):
    path = write_run(tmp_path / "a", [row(10), row(20), row(30)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "spl')
    with runs.MetricsLog(path, step=20) as log:
        log.append(row(25))
    assert [r["step"] for r in runs.read_run(path).rows] == [10, 20, 25]
    assert runs.read_run(path).problems == []


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = write_run(tmp_path / "a", [row(1, gradient_norm=float("nan"))])
    assert "NaN" not in (path / "metrics.jsonl").read_text()
    assert runs.read_run(path).rows[0]["gradient_norm"] is None


def test_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "x.json"
    runs.write_json(path, {"a": 1})

    class Unprintable:
        def __str__(self):
            raise RuntimeError("cannot be written")

    with pytest.raises(RuntimeError):
        runs.write_json(path, {"a": Unprintable()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_folder_of_runs_is_found_in_order(tmp_path):
    for name in ("b", "a"):
        write_run(tmp_path / name)
    (tmp_path / "report").mkdir()
    assert [run.name for run in runs.find_runs(tmp_path)] == ["a", "b"]
    assert [run.name for run in runs.find_runs(tmp_path / "a")] == ["a"]
    write_run(tmp_path / "a" / "c")  # A run that is also a folder of runs hides none of them.
    assert [run.name for run in runs.find_runs(tmp_path / "a")] == ["a", "c"]
    with pytest.raises(InputError, match="no such folder"):
        runs.find_runs(tmp_path / "nowhere")


def test_final_figures_are_of_the_last_epoch():
    rows = [row(180, loss=9.0, images_per_second=1.0)]
    rows += [row(step, loss=step / 10, images_per_second=3.0) for step in (190, 200)]
    figures = runs.final_training_figures([*rows, row(200, "test", loss=100.0)], steps_per_epoch=20)
    assert figures == {"train_loss": 19.5, "train_error": 0.5, "images_per_second": 3.0}


def test_final_figures_of_a_short_run_are_of_its_last_tenth():
    rows = [row(step, loss=step / 10) for step in (250, 270, 280, 290, 300)]
    assert runs.final_training_figures(rows, steps_per_epoch=391)["train_loss"] == 29.0


def test_final_figures_of_a_diverged_run_are_unknown():
    rows = [row(10), {**row(20), "loss": None}]
    assert runs.final_training_figures(rows, steps_per_epoch=20)["train_loss"] is None


def test_reading_runs_needs_no_jax():
    code = "import sys, resnet_jax.runs; print([m for m in ('jax', 'flax') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
