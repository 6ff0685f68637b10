"""Each network is compared at its own best setting, which the test set does not choose."""

import itertools
import json
from pathlib import Path

import pytest

from resnet_jax.reporting import setting_plots, write_report
from resnet_jax.reporting.findings import find
from resnet_jax.reporting.load import collect


@pytest.fixture
def write_rate(tmp_path: Path, write_run):
    def write(model: str, rate: float, seed: int = 0, *errors: float, warmup=None, **more) -> None:
        name = "-".join([model, *map(str, more.values()), f"rate{rate}", f"seed{seed}"])
        path = write_run(tmp_path, model, seed, *errors, name=name, **more)
        record = json.loads((path / "config.json").read_text())
        record["config"]["schedule"] |= {"learning_rate": rate, "warmup": warmup}
        (path / "config.json").write_text(json.dumps(record))

    return write


@pytest.fixture
def rates(tmp_path: Path, write_rate) -> Path:
    """At .1 plain-56 fails; at .03 it fits best, but another rate has the least test error."""
    for model, errors in {
        "plain-20": {0.1: (0.05, 0.09), 0.03: (0.06, 0.08)},
        "plain-56": {0.1: (0.60, 0.61), 0.03: (0.10, 0.14), 0.01: (0.12, 0.13)},
    }.items():
        for rate, (train, test) in errors.items():
            write_rate(model, rate, 0, train, test)
    for seed in (1, 2):
        write_rate("plain-20", 0.1, seed, 0.05 + 0.001 * seed, 0.09)
        write_rate("plain-56", 0.03, seed, 0.10 + 0.001 * seed, 0.14)
    return tmp_path


def test_run_whose_config_cannot_be_read_is_no_setting_that_was_tried(rates: Path, write_run):
    before = find(collect([rates]))
    path = write_run(rates, "plain-56", 0, 0.01, 0.01, name="damaged")
    (path / "config.json").write_text("{")
    after = find(collect([rates]))
    assert (after.headlines, after.details) == (before.headlines, before.details)
    assert len(after.selections) == 2


def test_best_training_error_over_shared_seeds_is_compared(rates: Path):
    findings = find(collect([rates]))
    assert [group.name for group in findings.groups] == [
        "plain-20 (learning_rate=0.1)",
        "plain-56 (learning_rate=0.03)",
    ]
    (headline,) = findings.headlines
    assert headline.startswith(
        "Plain networks – Degradation: plain-56's (learning_rate=0.03) training error is 10.1%, "
        "5.0 points above plain-20's (learning_rate=0.1)"
    )
    assert findings.details[-1] == (
        "Each network is shown at the best of the optimiser's settings that were tried, by "
        "training error over the 1 seed that all settings share, never by test error: plain-20 "
        "learning_rate=0.1, plain-56 learning_rate=0.03. Not all had the same choice: plain-20 "
        "without learning_rate=0.01."
    )


def test_another_data_sets_settings_are_not_missed(rates: Path, write_rate):
    for model in ("plain-20", "plain-56"):
        for rate in (0.3, 0.2):
            write_rate(model, rate, 7, 0.1, 0.1, dataset="mnist")
    (said,) = [line for line in find(collect([rates])).details if "optimiser's settings" in line]
    assert said.endswith("Not all had the same choice: plain-20 without learning_rate=0.01.")


def test_many_networks_stand_in_the_table_alone(tmp_path: Path, write_rate):
    for depth, rate in itertools.product((8, 14, 20, 26, 32, 38, 44), (0.1, 0.03)):
        write_rate(f"plain-{depth}", rate, 0, rate, rate)
    said = find(collect([tmp_path])).details[-1]
    assert said.endswith("never by test error; a table has them all.")


def test_settings_that_lost_stand_in_a_table(rates: Path):
    page = write_report([rates], rates / "report").files["results.md"].read_text()
    table = page[page.index("## Each network at its best") :].split("##")[1]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| plain")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["plain-20", "learning\\_rate=0.1", "3", "5.00", "9.00 ± 0.00", "best"],
        ["plain-20", "learning\\_rate=0.03", "1", "6.00", "8.00", "–"],
        ["plain-56", "learning\\_rate=0.03", "3", "10.00", "14.00 ± 0.00", "best"],
        ["plain-56", "learning\\_rate=0.01", "1", "12.00", "13.00", "–"],
        ["plain-56", "learning\\_rate=0.1", "1", "60.00", "61.00", "–"],
    ]


def test_rates_that_were_chosen_make_no_rows_of_the_figure(tmp_path: Path, write_rate):
    for index, width in enumerate((8, 12, 20, 24, 32)):
        for depth, rate in itertools.product((20, 56), (0.1, 0.01)):
            lost = (rate == 0.1) == (depth == 20)
            write_rate(f"plain-{depth}", rate, 0, 0.1 * (index + 1) + 0.01 * lost, width=width)
    ((panel, _),) = setting_plots.setting_rows(find(collect([tmp_path])).groups)
    assert panel.alternative == (
        "Final training error by setting: plain, width=8, plain, width=12, plain, width=20, "
        "plain, width=24, plain, width=32"
    )


def test_settings_without_a_seed_in_common_are_not_chosen_among(tmp_path: Path, write_rate):
    for rate, seeds, error in ((0.1, (0, 1, 2), 0.5), (0.03, (3, 4), 0.1)):
        for seed in seeds:
            write_rate("plain-20", rate, seed, error, error)
    findings = find(collect([tmp_path]))
    assert findings.details[-1] == (
        "Where a network's settings share no seed, none could be chosen; shown at the setting "
        "with the most seeds: plain-20 learning_rate=0.1."
    )
    page = write_report([tmp_path], tmp_path / "report").files["results.md"].read_text()
    assert "| most seeds |" in page
    assert "best" not in findings.text


def test_rate_tuned_on_one_data_set_chooses_nothing_on_another(tmp_path: Path, write_rate):
    for rate in (0.1, 0.03):
        write_rate("plain-20", rate, 0, 0.1, dataset="cifar10")
    write_rate("plain-56", 0.1, 0, 0.6)
    write_rate("plain-56", 0.1, 1, 0.3, warmup="linear")
    findings = find(collect([tmp_path]))
    assert [selection.best.dataset for selection in findings.selections] == ["cifar10"]
    assert [group.setting for group in findings.groups] == ["", "", "warmup=linear"]


def test_setting_that_diverges_loses_and_one_without_a_finished_run_is_named(
    tmp_path: Path, write_rate
):
    write_rate("plain-20", 0.1, 0, 0.01, status="diverged")
    write_rate("plain-20", 0.03, 0, 0.3, 0.3)
    write_rate("plain-20", 0.01, 0, 0.0, 0.0, status=None)
    findings = find(collect([tmp_path]))
    (selection,) = findings.selections
    assert selection.best.chosen == "learning_rate=0.03"
    assert selection.waiting == ["learning_rate=0.01"]
    assert "Not finished, so not judged: plain-20 at learning_rate=0.01." in findings.text


def test_validation_error_chooses_where_there_is_one(rates: Path):
    for path in rates.glob("plain-56*/summary.json"):
        summary = json.loads(path.read_text())
        summary["validation_error"] = 0.2 if "rate0.01" in str(path) else 0.3
        path.write_text(json.dumps(summary))
    selections = find(collect([rates])).selections
    assert [(s.best.chosen, s.criterion) for s in selections] == [
        ("learning_rate=0.1", "training error"),
        ("learning_rate=0.01", "validation error"),
    ]


def test_field_set_to_none_is_not_the_one_that_a_name_stands_for(tmp_path: Path, write_run):
    for depth in (20, 56):
        for norm, error in ((None, 0.1), ("none", 0.5)):
            write_run(
                tmp_path, f"plain-{depth}", 0, error, error, name=f"{depth}-{norm}", norm=norm
            )
    arms = find(collect([tmp_path])).arms
    assert [(arm.setting, arm.comparisons[0].deep.percents("train_error")) for arm in arms] == [
        ("", [10.0]),
        ("norm=none", [50.0]),
    ]


def test_runs_that_differ_in_their_warmup_alone_are_compared(tmp_path: Path, write_rate):
    write_rate("plain-56", 0.1, 0, 0.6)
    write_rate("plain-56", 0.1, 1, 0.3, warmup="linear")
    findings = find(collect([tmp_path]))
    assert not findings.selections
    assert [group.setting for group in findings.groups] == ["", "warmup=linear"]
