from pathlib import Path

import pytest

from resnet_jax.reporting.findings import Findings, find
from resnet_jax.reporting.load import collect
from resnet_jax.reporting.verdicts import Verdict


def found(folder: Path) -> Findings:
    return find(collect([folder]))


def verdicts(folder: Path) -> dict[str, Verdict]:
    return {comparison.family: comparison.verdict for comparison in found(folder).comparisons}


def test_degradation_is_told_with_size_interval_and_twin(degradation: Path):
    findings = found(degradation)
    assert findings.headlines == [
        "Degradation: plain-56's training error is 89.2%, 88.3 points above plain-20's (95% "
        "interval 87.8 to 88.8, Welch's t, 3 seeds a side); its residual twin resnet-56 is at "
        "0.4%, 0.0 points from resnet-20's. Higher training error: an optimisation effect, not "
        "overfitting."
    ]
    assert findings.caveats == []


def test_only_higher_test_error_is_overfitting(tmp_path: Path, write_run):
    for seed in range(3):
        write_run(tmp_path, "plain-20", seed, 0.010 + 0.001 * seed, 0.05 + 0.001 * seed)
        write_run(tmp_path, "plain-56", seed, 0.010 + 0.001 * seed, 0.15 + 0.001 * seed)
    assert verdicts(tmp_path) == {"plain": Verdict.OVERFITTING}
    (headline,) = found(tmp_path).headlines
    assert headline.startswith("Overfitting, not degradation: ")
    assert "Only the test error is higher, by 10.0 points" in headline


def test_difference_within_noise_is_not_called_one(tmp_path: Path, write_run):
    for seed, error in enumerate((0.11, 0.13, 0.12)):
        write_run(tmp_path, "plain-20", seed, error, error)
        write_run(tmp_path, "plain-56", seed, error + 0.01, error + 0.01)
    assert verdicts(tmp_path) == {"plain": Verdict.SMALL}
    assert "No difference that 3 seeds a side can show." in found(tmp_path).text


@pytest.mark.parametrize("test_errors", [(0.90, 0.92), (0.55, 0.93)])
def test_wide_interval_decides_nothing_and_is_no_overfitting(
    tmp_path: Path, write_run, test_errors: tuple[float, float]
):
    """Near chance in both, but two seeds' interval of the training error touches zero."""
    for seed, deep in enumerate((0.80, 0.92)):
        write_run(tmp_path, "plain-20", seed, 0.29 + 0.01 * seed, 0.27 + 0.001 * seed)
        write_run(tmp_path, "plain-56", seed, deep, test_errors[seed])
    assert verdicts(tmp_path) == {"plain": Verdict.NOISE}
    (headline,) = found(tmp_path).headlines
    assert headline.startswith("Undecided: plain-56's training error is 86.0%")
    assert "to 100.0, Welch's t" in headline  # Errors cannot differ by more.
    assert headline.endswith("These seeds are too few to tell.")


def test_deeper_net_that_is_better_is_no_degradation(tmp_path: Path, write_run):
    for seed in range(3):
        write_run(tmp_path, "resnet-20", seed, 0.050 + 0.001 * seed, 0.09)
        write_run(tmp_path, "resnet-56", seed, 0.010 + 0.001 * seed, 0.07)
    assert verdicts(tmp_path) == {"residual": Verdict.NONE}
    assert "4.0 points below resnet-20's" in found(tmp_path).text


@pytest.mark.parametrize(("deep", "verdict"), [(0.89, Verdict.OPTIMISATION), (0.04, Verdict.SMALL)])
def test_single_seeds_show_large_differences_only_and_no_interval(
    tmp_path: Path, write_run, deep: float, verdict: Verdict
):
    write_run(tmp_path, "plain-20", 0, 0.01, 0.02)
    write_run(tmp_path, "plain-56", 0, deep, deep)
    assert verdicts(tmp_path) == {"plain": verdict}
    assert "1 seed a side: no interval can be given" in found(tmp_path).text


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


@pytest.mark.parametrize(
    ("num_diverged", "verdict", "lead"),
    [(1, Verdict.NOISE, "Undecided: "), (4, Verdict.DIVERGED, "Degradation: ")],
)
def test_seeds_that_survive_do_not_speak_for_those_that_diverged(
    tmp_path: Path, write_run, num_diverged: int, verdict: Verdict, lead: str
):
    for seed in range(5):
        write_run(tmp_path, "plain-20", seed, 0.40 + 0.01 * seed, 0.40)
        status = "diverged" if seed < num_diverged else "completed"
        write_run(tmp_path, "plain-56", seed, 0.35 + 0.001 * seed, 0.35, status=status)
    assert verdicts(tmp_path) == {"plain": verdict}
    (headline,) = found(tmp_path).headlines
    assert headline.startswith(lead)
    assert f"plain-56 diverged in {num_diverged} of 5 seeds (left out of the means)." in headline
    most = "Most of plain-56's runs diverged: an optimisation effect."
    assert (most in headline) == (verdict is Verdict.DIVERGED)


def test_single_seeds_are_never_called_overfitting(tmp_path: Path, write_run):
    write_run(tmp_path, "plain-20", 0, 0.01, 0.05)
    write_run(tmp_path, "plain-56", 0, 0.01, 0.25)
    assert verdicts(tmp_path) == {"plain": Verdict.NOISE}


def test_net_that_always_diverges_is_an_optimisation_failure(tmp_path: Path, write_run):
    write_run(tmp_path, "plain-20")
    write_run(tmp_path, "plain-110", status="diverged")
    assert verdicts(tmp_path) == {"plain": Verdict.DIVERGED}
    assert "All of plain-110's runs diverged: an optimisation effect." in found(tmp_path).text
    assert "plain-110 diverged in 1 of 1 seed." in found(tmp_path).text


def test_unfinished_missing_and_failed_runs_limit_the_statement(
    degradation: Path, write_run, write_sweep
):
    write_run(degradation, "plain-110", 0, status=None)
    failed = write_run(degradation, "plain-110", 1, status=None)
    (failed / "error.txt").write_text("Traceback")
    names = [path.name for path in degradation.iterdir()]
    declared = {"model.name": "plain-110", "seed": 2}
    write_sweep(degradation, {**{name: {} for name in names}, "plain-110-seed2": declared})
    (caveat,) = found(degradation).caveats
    assert caveat.startswith("3 of 15 runs did not enter (")
    for words in ("1 unfinished", "1 failed with a bug", "1 not started"):
        assert words in caveat
    assert "plain-56" in found(degradation).headlines[0]


def test_families_are_compared_at_the_depths_that_they_share(degradation: Path, write_run):
    for seed in range(3):
        write_run(degradation, "resnet-110", seed, 0.001, 0.02 + 0.001 * seed)
    pairs = [(c.shallow.model, c.deep.model) for c in found(degradation).comparisons]
    assert pairs == [
        ("plain-20", "plain-56"),
        ("resnet-20", "resnet-56"),
        ("resnet-20", "resnet-110"),
    ]


def test_divergence_beyond_the_shared_depths_is_told_too(degradation: Path, write_run):
    write_run(degradation, "plain-110", status="diverged")
    write_run(degradation, "resnet-1202", 0, 0.3, 0.3)
    (headline,) = found(degradation).headlines
    assert "plain-56's training error is 89.2%" in headline
    assert "resnet-1202's training error is 30.0%" in headline
    assert "plain-110 diverged in 1 of 1 seed." in headline


def test_nets_trained_for_other_lengths_are_not_compared(degradation: Path, write_run):
    before = found(degradation).headlines
    write_run(degradation, "plain-8", 0, 0.95, 0.95, steps=20)
    findings = found(degradation)
    assert [f"digits, num_steps=300 – {line}" for line in before] == findings.headlines


def test_one_depth_allows_no_statement_about_degradation(tmp_path: Path, write_run):
    write_run(tmp_path, "resnet-110", test_error=0.066, order="original", name="a")
    write_run(tmp_path, "resnet-110", test_error=0.082, order="bn_after_add", name="b")
    findings = found(tmp_path)
    assert findings.comparisons == []
    assert "resnet-110, order=original has the lowest test error, 6.6%" in findings.text
    assert "nothing is said about degradation" in findings.text


def test_settings_are_compared_each_within_itself(tmp_path: Path, write_run):
    for activation, deep in (("relu", 0.9), ("tanh", 0.01)):
        write_run(tmp_path / activation, "plain-20", 0, 0.01, 0.02, activation=activation)
        write_run(tmp_path / activation, "plain-56", 0, deep, deep, activation=activation)
    findings = find(collect([tmp_path / "relu", tmp_path / "tanh"]))
    assert [line.split(" – ")[0] for line in findings.headlines] == [
        "digits, activation=relu",
        "digits, activation=tanh",
    ]
    assert [c.verdict for c in findings.comparisons] == [Verdict.OPTIMISATION, Verdict.SMALL]
