import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from resnet_jax.errors import InputError
from resnet_jax.reporting import Report, write_report


def page_of(folder: Path) -> str:
    return write_report([folder], folder / "report").index.read_text(encoding="utf-8")


class Addresses(HTMLParser):
    """Collects everything that a browser would fetch, and unbalanced elements."""

    def __init__(self, page: str):
        super().__init__()
        self.fetched, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list):
        self.fetched += [v for k, v in attrs if k in ("src", "href") and tag != "a"]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list):
        pass


def test_caption_says_where_validation_stands_for_test(tmp_path: Path, write_run):
    path = write_run(tmp_path) / "metrics.jsonl"
    said = "test error (of runs without one: validation error) bold"
    assert said not in page_of(tmp_path)
    path.write_text(path.read_text().replace('"split": "test"', '"split": "validation"'))
    assert said in page_of(tmp_path)


def test_three_depths_have_a_picture_of_error_against_depth(tmp_path: Path, write_run):
    for depth in (20, 32):
        write_run(tmp_path, f"plain-{depth}", 0, 0.1)
    assert "depths.png" not in write_report([tmp_path], tmp_path / "two").files
    write_run(tmp_path, "plain-56", 0, 0.3)
    picture = write_report([tmp_path], tmp_path / "three").files["depths.png"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_figures_of_an_earlier_report_do_not_stay(tmp_path: Path, write_run):
    for depth in (20, 32, 56):
        for seed in range(2):
            write_run(tmp_path / "deep", f"plain-{depth}", seed, 0.1 + 0.001 * seed)
    write_run(tmp_path / "single")
    earlier = write_report([tmp_path / "deep"], tmp_path / "report")
    assert "depths.png" in earlier.files
    (tmp_path / "report" / "own.png").write_bytes(b"")
    report = write_report([tmp_path / "single"], tmp_path / "report")
    there = {path.name for path in (tmp_path / "report").iterdir()}
    assert there == {*report.files, "own.png"}
    assert "depths.png" not in there


def test_figures_in_a_folder_that_has_no_report_stay(tmp_path: Path, write_run):
    write_run(tmp_path / "runs")
    (tmp_path / "depths.png").write_bytes(b"mine")
    write_report([tmp_path / "runs"], tmp_path)
    assert (tmp_path / "depths.png").read_bytes() == b"mine"


def test_report_is_page_figure_and_tables(report: Report):
    assert [path.name for path in report.files.values()] == [
        "index.html",
        "figure.png",
        "figure.svg",
        "results.csv",
        "results.md",
    ]
    assert all(path.stat().st_size > 100 for path in report.files.values())
    assert report.finding.startswith("Plain networks degrade, and more than residual ones: ")
    markdown = report.files["results.md"].read_text()
    assert all(line in markdown for line in report.finding.splitlines())


def test_report_is_the_same_bytes_when_written_again(report: Report, tmp_path: Path):
    first, second = report, write_report([report.index.parents[1]], tmp_path / "second")
    for one, two in zip(first.files.values(), second.files.values(), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_page_needs_no_other_file(report: Report):
    parsed = Addresses(report.index.read_text(encoding="utf-8"))
    assert parsed.open == []
    assert all(address.startswith(("#", "data:")) for address in parsed.fetched)


def test_contrast_leads_page_and_caption(report: Report):
    page = report.index.read_text(encoding="utf-8")
    lead = "Plain networks degrade, and more than residual ones: "
    finding = page[page.index('id="finding"') :]
    assert finding.index("<p>Plain networks degrade") < finding.index(
        "Plain networks – Degradation"
    )
    caption = page[page.index("<figcaption>") :]
    assert caption.startswith(f"<figcaption>{lead}")


def test_page_says_how_its_numbers_came_about(report: Report):
    page = report.index.read_text(encoding="utf-8")
    for words in (
        "12 runs · 3 seeds · digits",
        "the test set chose nothing",
        "after Welch and Satterthwaite",
        "2 x cpu",
        "jax 0.12.0",
        "train plain-56",
    ):
        assert words in page


def test_page_says_on_what_processor_and_from_which_commits(tmp_path: Path, write_run):
    for seed, commit in enumerate(("0123abc", "4567def+")):
        path = write_run(tmp_path, seed=seed) / "config.json"
        record = json.loads(path.read_text()) | {"processor": "A processor, 2 cores"}
        path.write_text(json.dumps(record | {"commit": commit}))
    page = page_of(tmp_path)
    assert "<dt>Processor</dt><dd>A processor, 2 cores</dd>" in page
    assert "<dt>Commit</dt><dd>0123abc<br>4567def, with uncommitted changes</dd>" in page


def test_names_from_configs_are_text(tmp_path: Path, write_run, write_sweep):
    evil = "<script>alert(1)</script>"
    write_run(tmp_path, evil, name="run", order='"><img src=x onerror=alert(2)>')
    write_run(tmp_path, evil, name="run2", order="other")
    write_sweep(tmp_path, {}, title=evil)
    page = page_of(tmp_path)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_damaged_runs_are_named_on_the_page_and_the_rest_is_drawn(degradation: Path):
    path = degradation / "plain-56-seed2" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    (degradation / "resnet-20-seed0" / "summary.json").write_text("")
    page = page_of(degradation)
    assert "plain-56-seed2: metrics.jsonl line 20: damaged or cut short" in page
    assert "resnet-20-seed0: summary.json: cannot be read" in page
    assert page.count("<svg") == 6


def test_failed_run_shows_its_traceback(degradation: Path, write_run):
    path = write_run(degradation, "plain-110", status=None)
    (path / "error.txt").write_text("ValueError: <b>boom</b>")
    assert "ValueError: &lt;b&gt;boom&lt;/b&gt;" in page_of(degradation)


def test_sweep_of_which_nothing_has_started_has_a_page(tmp_path: Path, write_sweep):
    write_sweep(tmp_path, {"plain-20-seed0": {"model.name": "plain-20", "seed": 0}})
    report = write_report([tmp_path], tmp_path / "report")
    assert "this may change: 1 of 1 runs (1 not started)." in report.finding
    assert "figure.png" not in report.files
    assert "missing" in report.index.read_text()


def test_analyses_are_shown_with_their_pictures(degradation: Path):
    folder = degradation / "analysis" / "responses"
    folder.mkdir(parents=True)
    (folder / "finding.md").write_text("# Responses\n\nSmaller for <deeper> nets.\n")
    (folder / "figure.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = page_of(degradation)
    assert "<p>Smaller for &lt;deeper&gt; nets.</p>" in page
    assert "data:image/svg+xml;base64," in page


def test_workdir_without_runs_is_refused_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(InputError):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_reporting_loads_neither_jax_nor_flax():
    code = (
        "import sys, resnet_jax.reporting;"
        "print([name for name in ('jax', 'flax', 'tensorboardX') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_whole_number_that_no_float_holds_stops_nothing(tmp_path: Path, write_run):
    path = write_run(tmp_path / "runs")
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"train_error": 10**400, "num_params": 10**400}
    (path / "summary.json").write_text(json.dumps(summary))
    with (path / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 10**400, "split": "train", "error": 10**400}) + "\n")
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    assert report.problems == ["plain-20-seed0: metrics.jsonl line 21: damaged or cut short"]
