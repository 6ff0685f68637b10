"""A run's folder is written so that any interruption can be read, and read so that any damage is
named.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

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
    summary = {"format": 1, "status": "completed", "train_error": 0.5}
    path = write_run(tmp_path / "a", [row(1), row(2, "test")], summary)
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


def test_run_that_a_bug_ended_before_it_began_is_not_damaged(tmp_path):
    (tmp_path / "error.txt").write_text("Traceback")
    run = runs.read_run(tmp_path)
    assert (run.status, run.problems) == ("failed", [])


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path):
    path = write_run(tmp_path / "a", [row(1), row(2)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "split": "tr')
    (path / "config.json").write_text("{")
    run = runs.read_run(path)
    assert run.rows == [row(1), row(2)]
    assert any("metrics.jsonl line 3" in problem for problem in run.problems)
    assert any("config.json" in problem for problem in run.problems)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"format": None, "config": {}}, "config.json: format None is no number"),
        ({"format": 1, "config": None}, "config.json: its config is no JSON object"),
        ({"format": 1}, "config.json: holds no config"),
    ],
)
def test_fields_of_another_type_are_named(content, problem, tmp_path):
    path = write_run(tmp_path / "a")
    runs.write_json(path / "config.json", content)
    run = runs.read_run(path)
    assert (run.status, run.problems) == ("partial", [problem])


@pytest.mark.parametrize(
    "summary", [{"format": 1}, {"status": "completed", "test_error": None}, {"status": [3]}]
)
def test_run_is_not_completed_by_a_summary_without_a_result(tmp_path, summary):
    run = runs.read_run(write_run(tmp_path / "a", [row(1)], summary))
    assert (run.status, run.problems) == ("partial", ["summary.json: holds no result"])


@pytest.fixture
def forbidden(monkeypatch):
    """Nobody may read or look up what lies in a folder; root, which tests may be, always may."""

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def forbid() -> None:
        for name in ("read_bytes", "read_text", "stat", "exists"):
            monkeypatch.setattr(Path, name, refuse)

    return forbid


def test_files_that_cannot_be_read_are_named(forbidden, tmp_path):
    path = write_run(tmp_path / "a", [row(1)])
    forbidden()
    run = runs.read_run(path)
    assert run.status == "partial"
    names = ("config.json", "summary.json", "metrics.jsonl")
    assert [problem.split(":")[0] for problem in run.problems] == list(names)
    assert all("cannot be read" in problem for problem in run.problems)


def test_log_that_cannot_be_read_at_the_moment_is_not_written_over(tmp_path):
    path = write_run(tmp_path / "a", [row(1)])
    before = (path / "metrics.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: _raise(OSError(errno.EIO, "")))
        with pytest.raises(OSError, match=f"{errno.EIO}"):
            runs.MetricsLog(path, step=1)
    assert (path / "metrics.jsonl").read_bytes() == before


def _raise(error):
    raise error


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


def test_file_is_named_when_the_disk_fills_while_it_is_written(tmp_path, monkeypatch):
    full = lambda **_: (os.open("/dev/full", os.O_WRONLY), str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(OSError, match="No space left") as caught:
        runs.write_json(tmp_path / "a.json", {})
    assert caught.value.filename == str(tmp_path / "a.json")


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


def test_run_has_its_folders_name_from_within_and_by_a_link(tmp_path, monkeypatch):
    path = write_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(path)
    assert runs.read_run(tmp_path / "link").name == "link"
    monkeypatch.chdir(path)
    assert [run.name for run in runs.find_runs(".")] == ["run"]


def test_final_figures_are_of_the_last_epoch():
    rows = [row(180, loss=9.0, images_per_second=1.0)]
    rows += [row(step, loss=step / 10, images_per_second=3.0) for step in (190, 200)]
    figures = runs.final_training_metrics([*rows, row(200, "test", loss=100.0)], steps_per_epoch=20)
    assert figures == {"train_loss": 19.5, "train_error": 0.5, "images_per_second": 3.0}


def test_final_figures_of_a_short_run_are_of_its_last_tenth():
    rows = [row(step, loss=step / 10) for step in (250, 270, 280, 290, 300)]
    assert runs.final_training_metrics(rows, steps_per_epoch=391)["train_loss"] == 29.0


def test_final_figures_weigh_rows_by_their_steps():
    rows = [row(step, loss=loss) for step, loss in ((270, 9.0), (300, 1.0), (301, 32.0))]
    assert runs.final_training_metrics(rows, steps_per_epoch=391)["train_loss"] == 2.0


def test_final_figures_of_a_diverged_run_are_unknown():
    rows = [row(10), {**row(20), "loss": None}]
    assert runs.final_training_metrics(rows, steps_per_epoch=20)["train_loss"] is None


def test_reading_runs_needs_no_jax():
    code = "import sys, resnet_jax.runs; print([m for m in ('jax', 'flax') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_run_keeps_the_identity_of_its_first_start(tmp_path):
    for folder in ("a", "a", "b"):
        runs.write_config(tmp_path / folder, {"seed": 0}, devices="none")
        first = runs.read_run(tmp_path / "a").info["run_id"]
    runs.write_config(tmp_path / "a", {"seed": 0}, devices="none")
    assert runs.read_run(tmp_path / "a").info["run_id"] == first
    assert runs.read_run(tmp_path / "b").info["run_id"] != first


def test_parts_of_a_run_that_others_trained_are_kept(tmp_path, monkeypatch):
    def start(commit: str, resumed: bool) -> list[str]:
        monkeypatch.setattr(runs.folder, "_commit", lambda: commit)
        runs.write_config(tmp_path, {}, devices="1 x cpu", resumed=resumed)
        info = runs.read_run(tmp_path).info
        return [part["commit"] for part in [*info.get("earlier", ()), info]]

    assert start("a", resumed=False) == ["a"]
    assert start("b", resumed=False) == ["b"]  # Nothing of a's is left.
    assert start("b", resumed=True) == ["b"]
    assert start("c", resumed=True) == ["b", "c"]
    assert start("d", resumed=True) == ["b", "c", "d"]
