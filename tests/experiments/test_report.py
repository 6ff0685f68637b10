"""The report command, as a user runs it."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def write_run(folder: Path, model: str, error: float) -> None:
    folder.mkdir(parents=True)
    config = {"model": {"name": model}, "dataset": {"name": "digits"}, "seed": 0}
    (folder / "config.json").write_text(json.dumps({"format": 1, "config": config}))
    row = {"step": 10, "split": "train", "error": error}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    summary = {"status": "completed", "train_error": error, "test_error": error}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def report(run_command):
    """Runs the command."""
    return partial(run_command, "report")


def test_command_writes_the_report_beside_the_runs_and_prints_the_finding(report, tmp_path: Path):
    write_run(tmp_path / "plain-20", "plain-20", 0.01)
    write_run(tmp_path / "plain-56", "plain-56", 0.9)
    result = report(f"--workdir={tmp_path}")
    assert result.code == 0, result.stderr
    assert str(tmp_path / "report" / "index.html") in result.stdout
    assert "Undecided, one seed: plain-56's training error is 90.0%" in result.stdout
    assert (tmp_path / "report" / "index.html").exists()


def test_several_folders_are_one_report_where_it_is_wanted(report, tmp_path: Path):
    write_run(tmp_path / "a" / "plain-20", "plain-20", 0.01)
    write_run(tmp_path / "b" / "plain-56", "plain-56", 0.9)
    output = tmp_path / "here"
    result = report(f"--workdir={tmp_path}/a", f"--workdir={tmp_path}/b", f"--output={output}")
    assert result.code == 0, result.stderr
    assert "a/plain-20" in (output / "results.csv").read_text()
    assert not (tmp_path / "a" / "report").exists()


def test_several_folders_without_an_output_are_refused(report, tmp_path: Path):
    for name, error in (("a", 0.1), ("b", 0.2)):
        write_run(tmp_path / name / "plain-20", "plain-20", error)
    result = report(f"--workdir={tmp_path}/a", f"--workdir={tmp_path}/b")
    assert result.code == 2
    (line,) = result.stderr.splitlines()
    assert "--output" in line
    assert not (tmp_path / "a" / "report").exists()


def test_terminal_names_damaged_metrics(report, tmp_path: Path):
    write_run(tmp_path / "plain-20", "plain-20", 0.01)
    (tmp_path / "plain-20" / "metrics.jsonl").unlink()
    result = report(f"--workdir={tmp_path}")
    assert result.code == 0, result.stderr
    assert "damaged: plain-20: metrics.jsonl: missing" in result.stdout


def test_page_calls_nothing_completed_that_has_no_figures(report, tmp_path: Path):
    write_run(tmp_path / "plain-20", "plain-20", 0.01)
    (tmp_path / "plain-20" / "summary.json").write_text('{"format": 1}')
    result = report(f"--workdir={tmp_path}")
    assert "damaged: plain-20: summary.json: holds no result" in result.stdout
    (row,) = (tmp_path / "report" / "results.csv").read_text().splitlines()[1:]
    assert "completed" not in row
    assert "partial" in row


def test_error_beyond_all_reason_stops_no_report(report, tmp_path: Path):
    write_run(tmp_path / "plain-20", "plain-20", 1e308)
    result = report(f"--workdir={tmp_path}")
    assert result.code == 0, result.stderr


def test_folder_without_runs_is_one_line_and_exit_code_2(report, tmp_path: Path):
    result = report(f"--workdir={tmp_path}")
    assert result.code == 2
    assert result.stderr.splitlines() == [
        f"error: workdir='{tmp_path}': no runs found in this folder"
    ]


@pytest.mark.slow
def test_results_page_is_what_the_kept_runs_say(report, tmp_path: Path):
    shutil.copytree(REPOSITORY / "results", tmp_path / "results")
    result = report(f"--results={tmp_path}/RESULTS.md")
    assert result.code == 0, result.stderr
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == (REPOSITORY / "RESULTS.md").read_text(), (
        "RESULTS.md is written by python -m experiments.report --results=RESULTS.md"
    )
    # A row for every net of the CIFAR tables of both papers.
    for row in ("resnet-1202 | 7.93", "plain-110 | &gt; 60", "| 22.71 (22.68 ± 0.22) |"):
        assert row in page


def test_archive_keeps_one_folder(report, tmp_path: Path):
    write_run(tmp_path / "a" / "plain-20", "plain-20", 0.01)
    result = report(f"--workdir={tmp_path}/a", f"--archive={tmp_path}/kept")
    assert result.code == 0, result.stderr
    assert (tmp_path / "kept" / "plain-20" / "summary.json").exists()
    result = report(f"--archive={tmp_path}/kept")
    assert result.code == 2
    assert "--workdir" in result.stderr


@pytest.mark.parametrize("place", ["a", "a/plain-20"])
def test_archive_never_replaces_the_runs_themselves(report, tmp_path: Path, place: str):
    write_run(tmp_path / "a" / "plain-20", "plain-20", 0.01)
    before = (tmp_path / "a" / "plain-20" / "metrics.jsonl").read_bytes()
    for workdir in ("a", "a/plain-20"):
        result = report(f"--workdir={tmp_path / workdir}", f"--archive={tmp_path / place}")
        assert result.code == 2
        assert "would replace" in result.stderr
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "a" / "plain-20" / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "a" / "plain-20" / "plain-20").exists()


def test_missing_flag_is_one_line_and_exit_code_2(report):
    result = report()
    assert result.code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--workdir" in result.stderr
