import csv
import io
from pathlib import Path

import pytest

from resnet_jax.reporting.load import collect
from resnet_jax.reporting.tables import (
    duration,
    escape_csv_formula,
    escape_markdown,
    results_table,
    runs_table,
    signed,
    to_csv,
)


def cells(folder: Path, dataset: str = "digits") -> list[dict[str, str]]:
    return results_table(dataset, collect([folder]).groups).rows


def test_row_has_mean_deviation_and_median_over_seeds(degradation: Path):
    row = cells(degradation)[1]
    assert row["Network"] == "plain-56"
    assert row["Parameters"] == "853,018"
    assert row["Seeds"] == "3"
    assert row["Test error, %"] == "88.20 ± 0.20"
    assert row["median"] == "88.20"
    assert "Paper, %" not in row


def test_paper_stands_beside_runs_of_its_recipe_without_a_mark(tmp_path: Path, write_run):
    for seed, error in enumerate((0.087, 0.088)):
        write_run(tmp_path, "resnet-20", seed, 0.01, error, dataset="cifar10", steps=64_000)
    write_run(tmp_path, "plain-20", 0, 0.03, 0.09, dataset="cifar10", steps=64_000)
    plain, residual = cells(tmp_path, "cifar10")
    assert (plain["Paper, %"], plain["Difference"]) == ("–", "–")
    assert residual["Paper, %"] == "8.75, v1 Table 6"
    assert residual["Difference"] == "0.00"


def test_shortened_run_is_marked_and_the_note_says_why(tmp_path: Path, write_run):
    write_run(tmp_path, "resnet-20", 0, 0.2, 0.25, dataset="cifar10", steps=2000)
    table = results_table("cifar10", collect([tmp_path]).groups)
    assert table.rows[0]["Difference"] == "+16.25*"
    assert "num_steps 2,000, not 64,000" in " ".join(table.notes)


def test_median_of_ours_is_compared_with_median_of_theirs(tmp_path: Path, write_run):
    for seed, error in enumerate((0.06, 0.064, 0.1)):
        write_run(
            tmp_path, "preact-resnet-110", seed, 0.0, error, dataset="cifar10", steps=64_000
        )  # fmt: skip
    assert cells(tmp_path, "cifar10")[0]["Difference"] == "+0.03"


def test_diverged_runs_are_counted_and_not_averaged(tmp_path: Path, write_run):
    write_run(tmp_path, "plain-56", 0, 0.2, 0.3)
    write_run(tmp_path, "plain-56", 1, 0.9, status="diverged")
    (row,) = cells(tmp_path)
    assert (row["Seeds"], row["Status"]) == ("1 of 2", "1 diverged")
    assert row["Training error, %"] == "20.00"
    runs = runs_table(collect([tmp_path]).results)
    assert list(runs.rows[1].values())[2:5] == ["diverged", "40", "90.00"]


def test_csv_has_a_line_a_run_in_natural_order_with_times_last(degradation: Path, write_run):
    write_run(degradation, "plain-110", status=None)
    rows = list(csv.DictReader(io.StringIO(to_csv(collect([degradation])))))
    assert [row["run"] for row in rows][:7:3] == [
        "plain-20-seed0",
        "plain-56-seed0",
        "plain-110-seed0",
    ]
    assert list(rows[0])[-2:] == ["images_per_second", "wall_seconds"]
    assert rows[0]["train_error"] == "0.007000"
    assert (rows[6]["status"], rows[6]["train_error"], rows[6]["steps"]) == ("partial", "", "300")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str):
    assert escape_csv_formula(text).startswith("'")


def test_names_with_commas_quotes_and_formulas_survive_csv(tmp_path: Path, write_run):
    write_run(tmp_path, '=HYPERLINK("http://x","y")', name="run")
    (row,) = csv.DictReader(io.StringIO(to_csv(collect([tmp_path]))))
    assert row["model"] == '\'=HYPERLINK("http://x","y")'


def test_names_cannot_break_out_of_a_markdown_table(tmp_path: Path, write_run):
    write_run(tmp_path, "a|b <script>[x](http://y) `c` *d*", name="run")
    text = results_table("digits", collect([tmp_path]).groups).to_markdown()
    row = text.splitlines()[2]
    assert "a\\|b &lt;script&gt;\\[x\\]" in row
    assert "<script>" not in text
    assert escape_markdown("a_b\n# c") == "a\\_b \\# c"


def test_small_differences_have_no_sign():
    assert [signed(value) for value in (0.123, -0.123, 0.004, -0.004)] == [
        "+0.12",
        "−0.12",
        "0.00",
        "0.00",
    ]


def test_times_are_told_in_the_unit_that_fits():
    assert [duration(s) for s in (45, 200, 7500, float("nan"))] == [
        "45 s",
        "3 min 20 s",
        "2 h 05 min",
        "–",
    ]
