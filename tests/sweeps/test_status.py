"""How far runs are is told from the ends of their files."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from configs import digits
from resnet_jax import runs
from resnet_jax.runs import Recipe
from resnet_jax.sweeps.plan import PlannedRun
from resnet_jax.sweeps.status import (
    State,
    StatusTable,
    clock,
    last_checkpoint,
    last_rows,
)


def planned(*names: str) -> list[PlannedRun]:
    return [PlannedRun(name, {}, "", Recipe.from_config(digits.get_config(name))) for name in names]


def write_rows(folder: Path, *rows: dict, rest: str = "") -> None:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + rest)


def train_row(step: int, **figures) -> dict:
    return {"step": step, "split": "train", "loss": 1.5, "error": 0.5, **figures}


def test_progress_is_the_last_rows_and_leaves_out_one_being_written(tmp_path: Path):
    test = {"step": 10, "split": "test", "loss": 1.0, "error": 0.25}
    last = train_row(20, error=0.4, images_per_second=100.0)
    write_rows(tmp_path, train_row(10), test, last, rest='{"step": 30, "spl')
    assert last_rows(tmp_path) == {"train": last, "test": test}


def test_progress_of_a_long_run_reads_only_the_end(tmp_path: Path):
    write_rows(tmp_path, *(train_row(step) for step in range(5000)))
    assert last_rows(tmp_path)["train"]["step"] == 4999


def test_run_that_has_not_begun_has_no_progress(tmp_path: Path):
    assert last_rows(tmp_path / "absent") == {}
    assert last_checkpoint(tmp_path / "absent") == 0


def test_lines_tell_start_resumption_and_result(tmp_path: Path, capsys: pytest.CaptureFixture):
    fresh, resumed = planned("plain-20", "resnet-20")
    table = StatusTable(tmp_path, [fresh, resumed], {})
    (tmp_path / "resnet-20" / "checkpoints" / "100").mkdir(parents=True)
    table.started(fresh)
    table.started(resumed)
    write_rows(tmp_path / "plain-20", train_row(300), {"step": 300, "split": "test", "error": 0.1})
    summary = {"format": 1, "status": "completed", "train_error": 0.25, "test_error": 0.1}
    runs.write_json(tmp_path / "plain-20" / "summary.json", summary)
    table.ended(fresh, State.DONE, "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["plain-20: started", "resnet-20: resumes from step 100"]
    assert lines[2].startswith("plain-20: done, training error 25.00%, test error 10.00%  [1 of 2")


def test_time_left_counts_a_resumed_run_from_where_it_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    (run,) = planned("plain-20")
    table = StatusTable(tmp_path, [run], {})
    (tmp_path / "plain-20" / "checkpoints" / "100").mkdir(parents=True)
    write_rows(tmp_path / "plain-20", train_row(190))  # of which 90 steps will be made again
    table.started(run)
    write_rows(tmp_path / "plain-20", train_row(150))
    now = 10.0
    assert table.seconds_left() == pytest.approx(10.0 * 150 / 50)


def test_time_left_counts_no_work_of_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    finished, new = planned("plain-20", "resnet-20")
    write_rows(tmp_path / "plain-20", train_row(300))
    table = StatusTable(tmp_path, [finished, new], {"plain-20": State.DONE})
    table.started(new)
    write_rows(tmp_path / "resnet-20", train_row(100))
    now = 10.0
    assert table.seconds_left() == pytest.approx(20.0)


def test_deep_network_counts_for_more_than_a_shallow_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    shallow, deep = planned("plain-20", "plain-110")
    table = StatusTable(tmp_path, [shallow, deep], {})
    table.started(shallow)
    write_rows(tmp_path / "plain-20", train_row(300))
    table.ended(shallow, State.DONE, "")
    now = 10.0
    assert table.seconds_left() == pytest.approx(55.0)


def test_table_shows_runs_at_work_even_if_not_all_fit(tmp_path: Path):
    runs = planned(*(f"plain-{depth}" for depth in range(8, 8 + 6 * 40, 6)))
    screen = Console(file=io.StringIO(), force_terminal=True, width=110, height=15)
    table = StatusTable(tmp_path, runs, {run.name: State.DONE for run in runs[:30]}, screen)
    with table:
        table.started(runs[30])
        write_rows(tmp_path / runs[30].name, train_row(20, images_per_second=128.0))
        table.refresh()
    text = screen.file.getvalue()
    row = next(line for line in text.splitlines() if runs[30].name in line and "20/300" in line)
    assert "running" in row
    assert "50.00%" in row
    assert "0:04:40" in row
    assert runs[2].name + " " not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.6, "0:01:00"), (3661, "1:01:01"), (90_000, "1.0 days")]
)
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text
