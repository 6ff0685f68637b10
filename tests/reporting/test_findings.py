"""The sentences that a report prints, each read as a referee would read it."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from resnet_jax.reporting import statistics
from resnet_jax.reporting.findings import Findings, find
from resnet_jax.reporting.load import collect
from resnet_jax.reporting.results_md import measure_spreads
from resnet_jax.reporting.statistics import Difference
from resnet_jax.reporting.verdicts import (
    SMALLEST_EFFECT,
    Comparison,
    Effect,
    Verdict,
    detectable,
    find_spread,
    judge,
    other_settings,
    packaged_spreads,
)

NO_SPREADS = packaged_spreads().iloc[:0]


def found(*folders: Path, table: pd.DataFrame = NO_SPREADS) -> Findings:
    return find(collect(folders), table)


def comparisons(findings: Findings) -> list[Comparison]:
    return [comparison for arm in findings.arms for comparison in arm.comparisons]


def verdicts(*folders: Path) -> dict[str, Verdict]:
    return {c.family: c.verdict for c in comparisons(found(*folders))}


@pytest.fixture
def write_networks(tmp_path: Path, write_run):
    """Writes one run a seed from `{model: (training errors, test errors)}` in percent.

    None for an error is a run that diverged.
    """

    def write(networks: dict[str, tuple[tuple, tuple]], folder: Path = tmp_path) -> Path:
        for model, (train, test) in networks.items():
            for seed, errors in enumerate(zip(train, test, strict=True)):
                if None in errors:
                    write_run(folder, model, seed, 0.9, status="diverged")
                else:
                    write_run(folder, model, seed, *(error / 100 for error in errors))
        return folder

    return write


SHALLOW = ((5.0, 5.1, 4.9, 5.2, 4.8), (8.9, 9.1, 8.8, 9.0, 8.7))


def near(*means: float, step: float = 0.1) -> tuple[tuple[float, ...], ...]:
    """Five errors around each mean, `step` apart."""
    return tuple(tuple(mean + step * (i - 2) for i in (2, 3, 1, 4, 0)) for mean in means)


OUTCOMES = {
    "five seeds, degradation": (
        near(9.4, 13.2),
        "Plain networks – Degradation: plain-56's training error is 9.4%, 4.4 points above "
        "plain-20's (95% interval +4.1 to +4.7), its test error 13.2%, 4.3 points above (95% "
        "interval +4.1 to +4.5); 5 seeds a side. Training error higher, test error higher: an "
        "optimisation effect, not overfitting.",
    ),
    "five seeds, degradation of the fit, test error undecided": (
        (near(9.4)[0], (9.0, 16.0, 5.0, 12.0, 8.0)),
        "Plain networks – Degradation: plain-56's training error is 9.4%, 4.4 points above "
        "plain-20's (95% interval +4.1 to +4.7), its test error 10.0%, 1.1 points above (95% "
        "interval −4.1 to +6.3); 5 seeds a side. Training error higher, test error undecided: an "
        "optimisation effect, not overfitting.",
    ),
    "five seeds, overfitting": (
        near(4.0, 13.0),
        "Plain networks – Overfitting, not degradation: plain-56's training error is 4.0%, 1.0 "
        "points below plain-20's (95% interval −1.2 to −0.8), its test error 13.0%, 4.1 points "
        "above (95% interval +3.8 to +4.4); 5 seeds a side. Training error lower, test error "
        "higher: it fits no worse but generalises worse.",
    ),
    "five seeds, no difference": (
        near(5.02, 8.9),
        "Plain networks – No degradation: plain-56's training error is 5.0%, 0.0 points from "
        "plain-20's (95% interval −0.3 to +0.3), its test error 8.9%, 0.0 points from it (95% "
        "interval −0.3 to +0.3); 5 seeds a side. Training error the same within 0.3 points, test "
        "error the same within 0.3 points: no worse in either.",
    ),
    "five seeds, better": (
        near(1.0, 7.0),
        "Plain networks – No degradation: plain-56's training error is 1.0%, 4.0 points below "
        "plain-20's (95% interval −4.3 to −3.7), its test error 7.0%, 1.9 points below (95% "
        "interval −2.1 to −1.7); 5 seeds a side. Training error lower, test error lower: no worse "
        "in either.",
    ),
    "five seeds, fits better, test error undecided": (
        (near(1.0)[0], (6.0, 16.0, 10.5, 15.0, 5.0)),
        "Plain networks – Undecided: plain-56's training error is 1.0%, 4.0 points below "
        "plain-20's (95% interval −4.3 to −3.7), its test error 10.5%, 1.6 points above (95% "
        "interval −4.6 to +7.8); 5 seeds a side. Training error lower, test error undecided: "
        "neither degradation nor its absence is shown.",
    ),
    "five seeds, opposite signs": (
        near(9.4, 5.9),
        "Plain networks – Opposite signs: plain-56's training error is 9.4%, 4.4 points above "
        "plain-20's (95% interval +4.1 to +4.7), its test error 5.9%, 3.0 points below (95% "
        "interval −3.2 to −2.8); 5 seeds a side. Training error higher, test error lower: it fits "
        "worse and generalises better.",
    ),
    "five seeds, divergence": (
        ((None,) * 5, (None,) * 5),
        "Plain networks – Degradation: plain-56 and plain-20 do not both have a training error. "
        "The deeper network diverges more often: an optimisation effect.",
    ),
    "one seed, large difference": (
        ((89.0,), (88.0,)),
        "Plain networks – Undecided, one seed: plain-56's training error is 89.0%, 84.0 points "
        "above plain-20's, its test error 88.0%, 79.1 points above; 1 "
        "seed a side. One seed has no spread: neither error is decided.",
    ),
    "one seed, the difference of a full recipe": (
        ((9.4,), (13.2,)),
        "Plain networks – Undecided, one seed: plain-56's training error is 9.4%, 4.4 points above "
        "plain-20's, its test error 13.2%, 4.3 points above; 1 seed a "
        "side. One seed has no spread: neither error is decided.",
    ),
    "one seed, no difference": (
        ((5.0,), (8.9,)),
        "Plain networks – Undecided, one seed: plain-56's training error is 5.0%, 0.0 points from "
        "plain-20's, its test error 8.9%, 0.0 points from it; 1 seed a "
        "side. One seed has no spread: neither error is decided.",
    ),
    "one seed, divergence": (
        ((None,), (None,)),
        "Plain networks – Undecided: plain-56 and plain-20 do not both have a training error. "
        "Nothing can be said yet.",
    ),
}


@pytest.mark.parametrize(("deep", "sentence"), OUTCOMES.values(), ids=OUTCOMES)
def test_outcome_has_the_sentence_that_the_seeds_carry(write_networks, deep, sentence: str):
    seeds = len(deep[0])
    shallow = tuple(errors[:seeds] for errors in SHALLOW)
    (headline,) = found(write_networks({"plain-20": shallow, "plain-56": deep})).headlines
    assert headline == sentence


@pytest.mark.parametrize(
    ("seeds", "deep", "verdict"),
    [(2, 1.0, Verdict.UNDECIDED), (3, 3.0, Verdict.DEGRADATION), (5, 1.0, Verdict.DEGRADATION)],
)
def test_few_seeds_that_agree_to_the_digit_have_a_spread_all_the_same(
    write_networks, seeds: int, deep: float, verdict: Verdict
):
    errors = {"plain-20": (0.4, 1.4), "plain-56": (deep, deep + 1)}
    errors |= {"resnet-20": (0.4, 1.4), "resnet-56": (0.4, 1.4)}
    folder = write_networks({n: tuple((e,) * seeds for e in own) for n, own in errors.items()})
    assert verdicts(folder)["plain"] == verdict
    (contrast,) = found(folder).arms[0].contrasts
    assert (contrast.effects[0] is Effect.HIGHER) == (verdict is Verdict.DEGRADATION)


def change(run: Path, **fields: Any) -> None:
    """Gives a run's config other values, by path."""
    record = json.loads((run / "config.json").read_text())
    for path, value in fields.items():
        *sections, field = path.split(".")
        section = functools.reduce(lambda part, key: part[key], sections, record["config"])
        section[field] = value
    (run / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("plain-56", {"schedule.learning_rate": 1e-4}),
        ("plain-56", {"model.width": 4, "dataset.crop_padding": 3}),
        ("resnet-*", {"schedule.learning_rate": 0.01}),
        ("resnet-*", {"label_smoothing": 0.1}),
        ("resnet-*", {"model.width": 64}),
        ("plain-*", {"model.activation": "sigmoid", "model.norm": "none"}),
        ("plain-*", {"model.initialization": "looks_linear"}),
        ("resnet-*", {"schedule.warmup": "linear"}),
        ("plain-56", {"schedule.warmup": "until_error"}),
    ],
)
def test_networks_that_differ_in_more_than_depth_and_family_are_not_compared(
    tmp_path: Path, write_run, name: str, fields: dict[str, Any]
):
    for seed in range(3):
        for model, error in (("plain-20", 0.01), ("plain-56", 0.7), ("resnet-20", 0.01)):
            write_run(tmp_path, model, seed, error + 0.001 * seed, error)
        write_run(tmp_path, "resnet-56", seed, 0.01 + 0.001 * seed, 0.01)
    assert [len(arm.contrasts) for arm in found(tmp_path).arms] == [1]
    for run in tmp_path.glob(f"{name}-seed*"):
        change(run, **fields)
    arms = found(tmp_path).arms
    assert len(arms) > 1
    assert not any(arm.contrasts for arm in arms)
    other = next(group for arm in arms for group in arm.groups if group.setting)
    assert next(iter(fields)).rpartition(".")[2] in other.label


def test_deeper_network_may_have_the_warm_up_of_its_depth(tmp_path: Path, write_run, write_sweep):
    for seed in range(3):
        write_run(tmp_path, "plain-20", seed, 0.01 + 0.001 * seed)
        change(write_run(tmp_path, "plain-110", seed, 0.7), **{"schedule.warmup": "until_error"})
    # Of one that has not started, the warm-up is not known.
    write_sweep(tmp_path, {"plain-164-seed0": {"model.name": "cifar-plain-164", "seed": 0}})
    assert verdicts(tmp_path) == {"plain": Verdict.DEGRADATION}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("plain-110", {"schedule.warmup": "linear"}),
        ("plain-110", {"schedule.warmup": "none"}),
        ("plain-110", {"schedule.warmup_error": 0.5}),
        ("plain-20", {"schedule.warmup": "until_error"}),
    ],
)
def test_families_of_which_one_has_another_warm_up_are_not_contrasted(
    tmp_path: Path, write_run, model: str, fields: dict[str, Any]
):
    for seed in range(3):
        for name in ("plain-20", "plain-110", "resnet-20", "resnet-110"):
            run = write_run(tmp_path, name, seed, 0.01 + 0.001 * seed)
            deep = {"schedule.warmup": "until_error", "schedule.warmup_error": 0.8}
            change(run, **(deep if name.endswith("110") else {"schedule.warmup": "none"}))
    (arm,) = found(tmp_path).arms
    assert len(arm.contrasts) == 1
    assert {group.setting for group in arm.groups} == {""}
    for run in tmp_path.glob(f"{model}-seed*"):
        change(run, **fields)
    arms = found(tmp_path).arms
    assert not any(arm.contrasts for arm in arms)
    assert any("warmup" in group.setting for arm in arms for group in arm.groups)


@pytest.mark.parametrize("pretrained", ["plain-56", "resnet-56"])
def test_pretrained_network_is_not_compared_with_one_from_scratch(
    degradation: Path, pretrained: str
):
    for run in degradation.glob(f"{pretrained}-*"):
        change(run, init_from=f"runs/{pretrained}")
    findings = found(degradation)
    assert not any(arm.contrasts for arm in findings.arms)
    assert {c.family for c in comparisons(findings)} == {"plain", "residual"} - {
        "plain" if pretrained == "plain-56" else "residual"
    }
    labels = {group.label for group in findings.groups}
    assert f"{pretrained}, init_from=given" in labels


def test_networks_that_all_have_weights_of_their_own_are_compared(degradation: Path):
    for model in ("plain-20", "plain-56", "resnet-20", "resnet-56"):
        for run in degradation.glob(f"{model}-seed*"):
            change(run, init_from=f"runs/{model}-long")
    assert [len(arm.contrasts) for arm in found(degradation).arms] == [1]


def test_networks_of_another_kind_are_no_depths_of_a_family(tmp_path: Path, write_run):
    errors = {"resnet-20": 0.08, "cifar-resnet-50": 0.04, "resnet-18": 0.02, "resnet-50": 0.12}
    for seed in range(3):
        for model, error in errors.items():
            write_run(tmp_path, model, seed, error + 0.001 * seed, error, dataset="cifar10")
    compared = {(c.shallow.model, c.deep.model) for c in comparisons(found(tmp_path))}
    assert compared == {("resnet-20", "cifar-resnet-50"), ("resnet-18", "resnet-50")}


def test_evaluations_count_where_the_plateau_counts_them(tmp_path: Path, write_run):
    for name in ("steps", "plateau"):
        for seed, period in ((0, 50), (1, 10)):
            run = write_run(tmp_path / name, "plain-20", seed)
            change(run, evaluate_every=period, **{"schedule.name": name})
    groups = {name: collect([tmp_path / name]).groups for name in ("steps", "plateau")}
    assert [len(groups["steps"]), len(groups["plateau"])] == [1, 2]
    assert {group.setting for group in groups["plateau"]} == {
        "evaluate_every=10", "evaluate_every=50"
    }  # fmt: skip


def test_sure_but_tiny_difference_is_no_degradation(write_networks):
    shallow = near(5.0, 8.9, step=0.01)
    deep = near(5.05, 8.95, step=0.01)
    findings = found(write_networks({"plain-20": shallow, "plain-56": deep}))
    (comparison,) = comparisons(findings)
    assert comparison.train.low > 0
    assert comparison.effects == (Effect.SAME, Effect.SAME)
    assert comparison.verdict is Verdict.NONE


def test_wide_interval_decides_nothing(write_networks):
    """Near chance in both, but two seeds' interval of the training error touches zero."""
    folder = write_networks(
        {"plain-20": ((29.0, 30.0), (27.0, 27.1)), "plain-56": ((80.0, 92.0), (55.0, 93.0))}
    )
    (headline,) = found(folder).headlines
    assert headline.startswith("Plain networks – Undecided: ")
    assert "to +100.0" in headline  # Errors cannot differ by more.


def test_contrast_leads_and_is_paired_over_seeds(degradation: Path):
    findings = found(degradation)
    (contrast,) = findings.arms[0].contrasts
    assert contrast.seeds == "3 seeds, paired"
    # All four networks share each seed's jitter, which pairing takes out: agreement to the digit.
    assert contrast.train.error == pytest.approx(SMALLEST_EFFECT / 3**0.5)
    assert findings.headlines == [
        "Plain networks degrade, and more than residual ones: going from 20 to 56 layers brings "
        "plain networks 88.3 points more training error (95% interval +86.8 to +89.8) and 85.7 "
        "points more test error (95% interval +84.4 to +87.0) than residual ones; 3 seeds, paired. "
        "The contrast is above zero in training and test."
    ]
    assert findings.details[0].startswith("Plain networks – Degradation: plain-56's training")
    assert findings.details[1].startswith("Residual networks – ")
    assert findings.caveats == [
        "Intervals exclude zero exactly where Holm's procedure rejects at 5% over the 6 "
        "comparisons made here; they are not simultaneous 95% intervals."
    ]


def test_contrast_of_unequal_seeds_is_not_paired(degradation: Path, write_run):
    write_run(degradation, "plain-56", 3, 0.89, 0.88)
    (contrast,) = found(degradation).arms[0].contrasts
    assert contrast.seeds == "3–4 seeds, unpaired"
    assert 0 < contrast.train.low < contrast.train.value < contrast.train.high


def test_contrast_where_both_families_gain_is_no_degradation(write_networks):
    folder = write_networks(
        {
            "plain-20": near(9.0, 12.0),
            "plain-56": near(7.0, 11.0),
            "resnet-20": near(9.0, 12.0),
            "resnet-56": near(4.0, 8.0),
        }
    )
    (headline,) = found(folder).headlines
    assert headline.startswith(
        "Depth favours residual networks over plain ones: going from 20 to 56 layers brings plain "
        "networks 3.0 points more training error"
    )


def test_one_seed_of_every_network_decides_no_contrast(write_networks):
    folder = write_networks(
        {
            "plain-20": ((5.0,), (8.9,)),
            "plain-56": ((9.4,), (13.2,)),
            "resnet-20": ((4.5,), (8.75,)),
            "resnet-56": ((1.0,), (6.97,)),
        }
    )
    (headline,) = found(folder).headlines
    assert headline == (
        "Undecided (one seed) whether depth favours residual networks over plain ones: going from "
        "20 to 56 layers brings plain networks 7.9 points more training error and "
        "6.1 points more test error than residual ones; 1 seed. One seed has no "
        "spread: neither error is decided."
    )


def test_single_seed_takes_its_spread_from_archived_runs_of_its_length(write_networks):
    folder = write_networks({"plain-20": ((5.0,), (8.9,)), "plain-56": ((9.4,), (13.2,))})
    row = {
        "dataset": "digits", "num_steps": 300, "batch_size": 128, "learning_rate": 0.1,
        "family": "plain", "model": "plain-68", "seeds": 9, "train_error": 0.2, "test_error": 0.3,
        "settings": other_settings(collect([folder]).groups[0]),
    }  # fmt: skip
    table = pd.DataFrame([row, row | {"num_steps": 600, "train_error": 9.0}])
    (headline,) = found(folder, table=table).headlines
    assert headline.startswith("Plain networks – Degradation: ")
    assert "with the spread of archived runs (plain-68, 9 seeds)" in headline
    shallower = table.assign(model="plain-32")  # says nothing of plain-56
    assert "Undecided, one seed" in found(folder, table=shallower).headlines[0]
    assert (
        found(folder, table=table.tail(1))
        .headlines[0]
        .startswith("Plain networks – Undecided, one seed")
    )


def test_archive_is_measured_for_its_spread(tmp_path: Path, write_run):
    for seed, error in enumerate((0.10, 0.12, 0.14, 0.12, 0.12)):
        write_run(tmp_path / "depth", "plain-20", seed, error, 2 * error)
    for seed in range(4):  # too few
        write_run(tmp_path / "depth", "plain-56", seed, 0.1 * seed)
    (row,) = measure_spreads(tmp_path).to_dict("records")
    assert (row["model"], row["seeds"]) == ("plain-20", 5)
    assert (row["train_error"], row["test_error"]) == pytest.approx((1.414, 2.828))


def test_spread_is_that_of_the_same_settings_where_it_was_measured(tmp_path: Path, write_run):
    for seed, errors in enumerate(((0.10, 0.1), (0.12, 0.9), *[(0.11, 0.5)] * 3)):
        write_run(tmp_path / "cures", "plain-20", seed, errors[0], errors[0], name=f"a{seed}")
        other = {"name": f"b{seed}", "activation": "tanh"}
        write_run(tmp_path / "cures", "plain-20", seed, errors[1], errors[1], **other)
    table = measure_spreads(tmp_path)
    plain, tanh = collect([tmp_path / "cures"]).groups
    spreads = [find_spread(table, group, "train_error")["train_error"] for group in (plain, tanh)]
    assert spreads == pytest.approx([0.707, 28.284], abs=0.001)
    assert find_spread(table.tail(1), plain, "train_error") is None


def test_packaged_spreads_are_those_of_the_archive():
    archive = Path(__file__).parents[2] / "results"
    measured = measure_spreads(archive).reset_index(drop=True)
    pd.testing.assert_frame_equal(packaged_spreads(), measured, check_dtype=False)


def test_trend_over_depth_is_judged_seed_by_seed(write_networks):
    networks = {}
    for depth, error in ((8, 5.0), (20, 6.2), (32, 7.4), (56, 9.8)):
        networks[f"plain-{depth}"] = near(error, error + 2)
        networks[f"resnet-{depth}"] = near(5.0, 7.0)
    findings = found(write_networks(networks))
    (trend,) = findings.arms[0].trends
    slopes = [slope.value for slope in (*trend.slopes[0], trend.train)]
    assert slopes == pytest.approx([1.0, 0.0, 1.0])
    assert findings.details[0].startswith(
        "Trend per 10 more layers (straight lines through 4 depths, 5 seeds): "
        "training error +1.00 points (95% interval +1.00 to +1.00) in plain networks and 0.00 "
        "points (95% interval 0.00 to 0.00) in residual networks, a difference of +1.00 (95% "
        "interval +1.00 to +1.00); test error +1.00 points"
    )


@pytest.mark.parametrize("lost", [2, 5])
def test_no_trend_is_that_of_the_runs_that_did_not_diverge(write_networks, lost):
    networks = {
        f"{family}-{depth}": near(15 - depth / 10, 17 - depth / 10)
        for family in ("plain", "resnet") for depth in (8, 20, 32, 56)
    }  # fmt: skip
    survivors = (1.0,) * (5 - lost) + (None,) * lost
    findings = found(write_networks({**networks, "plain-56": (survivors, survivors)}))
    assert findings.arms[0].trends == []
    assert f"plain-56 diverged in {lost} of 5 seeds" in findings.text


def test_what_makes_residual_networks_unlike_their_names_is_told(tmp_path: Path, write_run):
    for seed in range(5):
        for depth, error in ((20, 0.05), (56, 0.6)):
            write_run(tmp_path, f"plain-{depth}", seed, 0.1 + 0.001 * seed)
            write_run(tmp_path, f"resnet-{depth}", seed, error + 0.001 * seed, shortcut="dropout")
    findings = found(tmp_path)
    assert " than residual ones with shortcut=dropout; 5 seeds, paired." in findings.headlines[0]
    assert "resnet-56's (shortcut=dropout) training error is 60.2%" in findings.text
    labels = [group.label for group in findings.groups]
    assert labels == [
        "plain-20", "plain-56", "resnet-20, shortcut=dropout", "resnet-56, shortcut=dropout"
    ]  # fmt: skip


def test_slopes_of_both_families_are_among_the_comparisons(write_networks):
    rise = lambda slope, error: near(*(slope * error + own for own in (0, 1)), step=0.1 * slope)
    folder = write_networks({
        f"{family}-{depth}": rise(slope, depth / 10)
        for family, slope in (("plain", 3.0), ("resnet", 0.2))
        for depth in (8, 20, 32)
    })  # fmt: skip
    findings = found(folder)
    # Contrast, three lines of a trend and two families, in training and test.
    assert "over the 12 comparisons" in findings.caveats[0]
    confidences = [d.confidence for d in findings.arms[0].differences]
    assert len(confidences) == 12
    assert max(confidences) == pytest.approx(1 - 0.05 / 12)
    (trend,) = findings.arms[0].trends
    assert trend.slopes[0][1].low is not None


def test_two_seeds_spread_is_no_ground_to_plan_on(write_networks):
    two = lambda error: ((error, error + 0.2), (error + 1, error + 1.1))
    networks = {"plain-20": two(5), "plain-56": two(9), "resnet-20": two(5), "resnet-56": two(5)}
    findings = found(write_networks(networks))
    (contrast,) = findings.arms[0].contrasts
    for part in (contrast, *comparisons(findings)):
        assert part.train.has_interval
        assert not part.train.can_plan
    assert not [line for line in findings.details if line.startswith("Power: ")]


def test_seeds_of_different_versions_of_the_code_are_told(tmp_path: Path, write_run):
    for seed, commit in enumerate(("0123abcd", "0123abcd", "4567defa+")):
        for model in ("plain-20", "plain-56"):
            path = write_run(tmp_path, model, seed) / "config.json"
            changed = commit if model == "plain-56" else "0123abcd"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": changed}))
    assert [line for line in found(tmp_path).caveats if "version" in line] == [
        "The runs of plain-56 were trained by different versions of the code (commits 0123abc, "
        "4567def+), which may add to a spread over seeds or hide it.",
        "Not all networks were trained by one version of the code, so a difference between them "
        "may be due to that: plain-20 (0123abc); plain-56 (0123abc, 4567def+).",
    ]


def test_networks_of_different_versions_of_the_code_and_parts_of_a_run_are_told(
    tmp_path, write_run
):
    for model, commits in (
        ("plain-20", "0"),
        ("plain-56", "0"),
        ("resnet-20", "1"),
        ("resnet-56", "12"),
    ):
        path = write_run(tmp_path, model) / "config.json"
        *earlier, last = ({"commit": commit * 40} for commit in commits)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"earlier": earlier} | last))
    assert [line for line in found(tmp_path).caveats if "version" in line] == [
        "The runs of resnet-56 were trained by different versions of the code (commits 1111111, "
        "2222222), which may add to a spread over seeds or hide it.",
        "Not all networks were trained by one version of the code, so a difference between them "
        "may be due to that: plain-20, plain-56 (0000000); resnet-20 (1111111); resnet-56 "
        "(1111111, 2222222).",
    ]


def test_report_says_what_the_seeds_could_have_found(write_networks):
    folder = write_networks({"plain-20": SHALLOW, "plain-56": near(9.4, 13.2)})
    (power,) = [line for line in found(folder).details if line.startswith("Power: ")]
    # Standard deviation .158, five seeds a side: error .1 on 8 degrees. At 97.5% and 95% (Holm)
    # the noncentralities are 3.7 and 3.2; .3 points, the least that counts, are .84 errors away.
    assert power == (
        "Power: with probability 0.8 these seeds detect a difference of 0.4 points of training "
        "error and 0.4 points of test error; detecting 1 point takes 3 seeds of each network in "
        "training error and 2 in test error."
    )


@pytest.mark.parametrize("std", [0.02, 1.0])
@pytest.mark.parametrize("comparisons", [1, 6])
def test_difference_that_seeds_find_is_judged_higher_as_often(std: float, comparisons: int):
    draw, confidence, tries = np.random.default_rng(0), 1 - 0.05 / comparisons, 300
    error = std * (2 / 5) ** 0.5
    known = Difference(0, (std**2, std**2), error, 8, confidence, least_freedom=4)
    effect = detectable(known)
    judged = [
        judge(
            dataclasses.replace(
                statistics.welch(draw.normal(effect, std, 5), draw.normal(0, std, 5)),
                confidence=confidence,
            )
        )
        for _ in range(tries)
    ]
    assert judged.count(Effect.HIGHER) / tries == pytest.approx(0.8, abs=0.06)


def test_number_of_seeds_that_nobody_plans_is_not_given(write_networks):
    shallow, deep = (1.0, 1.1, 0.9, 1.2, 1.0), (20, 85, 15, 90, 80)
    folder = write_networks({"plain-20": (shallow, shallow), "plain-56": (deep, deep)})
    (power,) = [line for line in found(folder).details if line.startswith("Power: ")]
    assert power.endswith("; detecting 1 point takes more than 10,000 seeds of each network.")


def test_diverged_runs_are_counted_and_never_averaged_in(tmp_path: Path, write_run):
    for seed in range(5):
        write_run(tmp_path, "plain-20", seed, 0.01 + 0.001 * seed, 0.02)
        status = "diverged" if seed in (1, 3) else "completed"
        error = 0.9 if status == "diverged" else 0.2 + 0.001 * seed
        write_run(tmp_path, "plain-56", seed, error, error, status=status)
    text = found(tmp_path).text
    assert "plain-56's training error is 20.2%" in text
    assert "3 and 5 seeds" in text
    assert "plain-56 diverged in 2 of 5 seeds (left out of the means)." in text


def test_unfinished_runs_may_yet_complete_where_those_that_diverge_have_ended(tmp_path, write_run):
    for seed in range(10):
        write_run(tmp_path, "plain-20", seed, 0.01 + 0.001 * seed, 0.02)
        write_run(tmp_path, "plain-56", seed, status="diverged" if seed < 4 else None)
    assert verdicts(tmp_path) == {"plain": Verdict.UNDECIDED}
    assert "diverges more often" not in found(tmp_path).text


def test_runs_that_have_not_started_do_not_hide_that_all_others_diverged(
    tmp_path: Path, write_run, write_sweep
):
    for seed in range(5):
        write_run(tmp_path, "plain-20", seed, 0.01 + 0.001 * seed, 0.02)
        write_run(tmp_path, "plain-56", seed, status="diverged")
    awaited = {f"plain-56-seed{s}": {"model.name": "plain-56", "seed": s} for s in range(20)}
    write_sweep(tmp_path, awaited)
    assert verdicts(tmp_path) == {"plain": Verdict.DEGRADATION}
    assert "plain-56 diverged in 5 of 5 seeds." in found(tmp_path).text


@pytest.mark.parametrize(
    ("num_diverged", "verdict"), [(1, Verdict.UNDECIDED), (4, Verdict.DEGRADATION)]
)
def test_seeds_that_survive_do_not_speak_for_those_that_diverged(
    tmp_path: Path, write_run, num_diverged: int, verdict: Verdict
):
    for seed in range(5):
        write_run(tmp_path, "plain-20", seed, 0.40 + 0.001 * seed, 0.40)
        status = "diverged" if seed < num_diverged else "completed"
        write_run(tmp_path, "plain-56", seed, 0.35 + 0.001 * seed, 0.35, status=status)
    assert verdicts(tmp_path) == {"plain": verdict}
    more = "The deeper network diverges more often: an optimisation effect."
    assert (more in found(tmp_path).text) == (verdict is Verdict.DEGRADATION)
    assert f"plain-56 diverged in {num_diverged} of 5 seeds" in found(tmp_path).text


def test_unfinished_missing_and_failed_runs_limit_the_statement(
    degradation: Path, write_run, write_sweep
):
    write_run(degradation, "plain-110", 0, status=None)
    failed = write_run(degradation, "plain-110", 1, status=None)
    (failed / "error.txt").write_text("Traceback")
    names = [path.name for path in degradation.iterdir()]
    declared = {"model.name": "plain-110", "seed": 2}
    write_sweep(degradation, {**{name: {} for name in names}, "plain-110-seed2": declared})
    caveat = found(degradation).caveats[-1]
    assert caveat.startswith("Left out, so this may change: 3 of 15 runs (")
    for words in ("1 unfinished", "1 failed with a bug", "1 not started"):
        assert words in caveat


def test_families_are_compared_at_the_depths_that_they_share(degradation: Path, write_run):
    for seed in range(3):
        write_run(degradation, "resnet-110", seed, 0.001, 0.02 + 0.001 * seed)
    pairs = [(c.shallow.model, c.deep.model) for c in comparisons(found(degradation))]
    assert pairs == [
        ("plain-20", "plain-56"),
        ("resnet-20", "resnet-56"),
        ("resnet-20", "resnet-110"),
    ]


def test_no_network_is_left_out_for_another_of_its_depth(tmp_path: Path, write_run):
    for seed in range(3):
        write_run(tmp_path, "plain-20", seed, 0.010 + 0.001 * seed)
        write_run(tmp_path, "plain-56", seed, 0.200 + 0.001 * seed)
        write_run(tmp_path, "cifar-plain-56", seed + 3, 0.020 + 0.001 * seed)
    (line,) = [line for line in found(tmp_path).headlines if "plain-56" in line]
    assert "plain-56's training error is 11.1%" in line
    assert "6 and 3 seeds" in line
    for model in ("mine-8", "mine-20", "yours-20"):
        write_run(tmp_path, model)
    findings = found(tmp_path)
    assert {c.family for c in comparisons(findings)} == {"plain"}
    assert (
        "digits – Not compared, because several networks of one family have one depth: mine-20, "
        "yours-20."
    ) in findings.caveats


def test_divergence_beyond_the_shared_depths_is_told_too(degradation: Path, write_run):
    write_run(degradation, "plain-110", status="diverged")
    write_run(degradation, "resnet-1202", 0, 0.3, 0.3)
    text = found(degradation).text
    assert "plain-56's training error is 89.2%" in text
    assert "resnet-1202's training error is 30.0%" in text
    assert "plain-110 diverged in 1 of 1 seed." in text


def test_networks_trained_for_other_lengths_are_not_compared(degradation: Path, write_run):
    before = found(degradation).headlines
    write_run(degradation, "plain-8", 0, 0.95, 0.95, steps=20)
    assert found(degradation).headlines == before


def test_one_depth_allows_no_statement_about_degradation(tmp_path: Path, write_run):
    write_run(tmp_path, "resnet-110", test_error=0.066, order="original", name="a")
    write_run(tmp_path, "resnet-110", test_error=0.082, order="bn_after_add", name="b")
    findings = found(tmp_path)
    assert comparisons(findings) == []
    assert "resnet-110, order=original has the lowest test error, 6.6%" in findings.text
    assert "nothing is said about degradation" in findings.text


def test_settings_are_compared_each_within_itself(tmp_path: Path, write_run):
    for activation, deep in (("relu", 0.9), ("tanh", 0.01)):
        for seed in range(3):
            jitter = 0.0001 * seed
            for model, error in (("plain-20", 0.01), ("plain-56", deep)):
                folder = tmp_path / activation
                errors = (error + jitter, error + jitter)
                write_run(folder, model, seed, *errors, activation=activation)
    findings = found(tmp_path / "relu", tmp_path / "tanh")
    assert [line.split(" – ")[0] for line in findings.headlines] == [
        "digits, activation=relu",
        "digits, activation=tanh",
    ]
    assert [c.verdict for c in comparisons(findings)] == [Verdict.DEGRADATION, Verdict.NONE]
