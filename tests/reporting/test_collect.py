import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.errors import InputError
from resnet_jax.reporting import archive
from resnet_jax.reporting.findings import find
from resnet_jax.reporting.load import collect


def test_runs_that_differ_in_the_seed_alone_are_one_group(degradation: Path):
    groups = collect([degradation]).groups
    assert [group.label for group in groups] == ["plain-20", "plain-56", "resnet-20", "resnet-56"]
    assert {len(group.results) for group in groups} == {3}


def test_field_that_earlier_versions_lacked_does_not_make_another_experiment(
    tmp_path: Path, write_run
):
    for seed in range(3):
        path = write_run(tmp_path, "resnet-20", seed) / "config.json"
        record = json.loads(path.read_text())
        record["config"] |= [{}, {"init_from": None}, {"init_from": "elsewhere"}][seed]
        path.write_text(json.dumps(record))
    assert sorted(len(group.results) for group in collect([tmp_path]).groups) == [1, 2]


def test_two_names_of_one_network_are_one_group(tmp_path: Path, write_run, write_sweep):
    for seed, model in enumerate(("plain-56", "cifar-plain-56", "resnet-50", "cifar-resnet-50")):
        write_run(tmp_path, model, seed, dataset="cifar10")
    write_sweep(tmp_path, {"awaited": {"model.name": "cifar-plain-56", "seed": 4}})
    sizes = {group.label: len(group.results) for group in collect([tmp_path]).groups}
    assert sizes == {"plain-56": 3, "resnet-50": 1, "cifar-resnet-50": 1}


def test_label_names_the_settings_in_which_nets_of_one_name_differ(tmp_path: Path, write_run):
    write_run(tmp_path, "resnet-20", name="a", option="A")
    write_run(tmp_path, "resnet-20", name="b", option="B")
    assert [group.label for group in collect([tmp_path]).groups] == [
        "resnet-20, option=A",
        "resnet-20, option=B",
    ]


def test_label_leaves_out_what_most_nets_have(tmp_path: Path, write_run):
    for name, width in (("a", 16), ("b", 16), ("c", 32)):
        write_run(tmp_path, f"resnet-{20 + 12 * (name == 'b')}", name=name, width=width)
    labels = {group.results[0].name: group.label for group in collect([tmp_path]).groups}
    assert labels == {"a": "resnet-20", "b": "resnet-32", "c": "resnet-20, width=32"}
    write_run(tmp_path, "resnet-20", name="d")  # Of the network's name: no width is told.
    labels = {group.results[0].name: group.label for group in collect([tmp_path]).groups}
    assert (labels["a"], labels["d"]) == ("resnet-20, width=16", "resnet-20")


def test_where_a_run_ran_does_not_make_it_another_experiment(tmp_path: Path, write_run):
    for seed in range(2):
        path = write_run(tmp_path, "resnet-20", seed) / "config.json"
        record = json.loads(path.read_text())
        record["config"]["num_devices"] = seed + 1
        path.write_text(json.dumps(record))
    assert len(collect([tmp_path]).groups) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"warmup": "none", "warmup_steps": 40}, {"warmup": "none", "warmup_steps": 20}),
        ({"boundaries": [0.5, 0.75]}, {"boundaries": [150, 225]}),
        (
            {"name": "cosine", "boundaries": [0.5]},
            {"name": "cosine", "boundaries": [0.9], "patience": 3},
        ),
    ],
)
def test_what_the_schedule_does_not_use_does_not_make_it_another_experiment(
    tmp_path: Path, write_run, write_sweep, one: dict[str, Any], other: dict[str, Any]
):
    for seed, schedule in enumerate((one, other)):
        path = write_run(tmp_path, "resnet-20", seed) / "config.json"
        record = json.loads(path.read_text())
        record["config"]["schedule"] |= schedule
        path.write_text(json.dumps(record))
    declared = {f"schedule.{field}": value for field, value in other.items()}
    write_sweep(tmp_path, {"awaited": {"model.name": "resnet-20", "seed": 2, **declared}})
    (group,) = collect([tmp_path]).groups
    assert [result.status for result in group.results] == ["missing", "completed", "completed"]


def test_what_the_kind_of_schedule_says_is_not_told_twice(tmp_path: Path, write_run):
    for seed, schedule in enumerate(
        ({"warmup": "linear", "warmup_steps": 40}, {"warmup": "none", "warmup_steps": 40})
    ):
        path = write_run(tmp_path, "resnet-20", seed) / "config.json"
        record = json.loads(path.read_text())
        record["config"]["schedule"] |= schedule
        path.write_text(json.dumps(record))
    labels = {group.label for group in collect([tmp_path]).groups}
    assert labels == {"resnet-20, warmup=linear", "resnet-20, warmup=none"}


def test_runs_are_grouped_by_the_run_that_gave_their_weights(tmp_path: Path, write_run):
    sources = [("runs/src", "1"), ("/home/me/runs/src", "1"), ("runs/src", "2")]
    for seed, (path, run_id) in enumerate(sources):
        config = write_run(tmp_path, "resnet-20", seed) / "config.json"
        record = json.loads(config.read_text())
        record["config"]["init_from"] = path
        config.write_text(json.dumps(record | {"init_from_id": run_id}))
    seeds = {group.label: len(group.results) for group in collect([tmp_path]).groups}
    assert seeds == {"resnet-20, init_from=runs/src": 2, "resnet-20, init_from=runs/src (2)": 1}


def test_runs_that_a_sweep_awaits_are_missing_members_of_their_group(
    degradation: Path, write_sweep
):
    names = {path.name: {} for path in degradation.iterdir()}
    awaited = {"plain-56-seed3": {"model.name": "plain-56", "seed": 3}}
    write_sweep(degradation, {**names, **awaited})
    group = next(g for g in collect([degradation]).groups if g.model == "plain-56")
    assert [result.status for result in group.results] == ["completed"] * 3 + ["missing"]
    assert len(group.values("test_error")) == 3


def test_runs_that_another_sweep_awaits_are_of_no_group_here(
    degradation: Path, tmp_path: Path, write_sweep
):
    awaited = {f"plain-56-seed{seed}": {"model.name": "plain-56", "seed": seed} for seed in (8, 9)}
    write_sweep(tmp_path / "other", awaited, config="configs/cifar10.py")
    groups = collect([degradation, tmp_path / "other"]).groups
    assert [
        (group.dataset, len(group.results)) for group in groups if group.model == "plain-56"
    ] == [("digits", 3), ("unknown", 2)]


def test_awaited_run_joins_its_group_however_its_numbers_are_written(
    tmp_path: Path, write_run, write_sweep
):
    write_run(tmp_path, "resnet-20", shortcut="constant_scaling", shortcut_scale=1.0)
    declared = {"model.name": "resnet-20", "model.shortcut_scale": 1}
    write_sweep(tmp_path, {"resnet-20-seed0": declared, "resnet-20-seed1": declared})
    (group,) = collect([tmp_path]).groups
    assert [result.status for result in group.results] == ["completed", "missing"]


def test_run_without_config_is_named_and_kept_apart(degradation: Path):
    (degradation / "plain-20-seed1" / "config.json").unlink()
    collection = collect([degradation])
    assert collection.problems == ["plain-20-seed1: config.json: missing"]
    sizes = [len(group.results) for group in collection.groups if group.model == "plain-20"]
    assert sorted(sizes) == [1, 2]


def test_damaged_config_is_replaced_by_what_the_sweep_declared(degradation: Path, write_sweep):
    (degradation / "plain-20-seed1" / "config.json").write_text('{"config": {"mod')
    names = [path.name for path in degradation.iterdir()]
    write_sweep(degradation, {name: {"model.name": name.rsplit("-", 1)[0]} for name in names})
    sizes = [len(g.results) for g in collect([degradation]).groups if g.model == "plain-20"]
    assert sizes == [3]


def test_run_whose_config_cannot_be_read_is_shown_and_never_averaged_or_compared(
    degradation: Path, write_run, write_sweep
):
    before = find(collect([degradation]))
    runs = [write_run(degradation, "plain-20", 3, 0.9, 0.9), write_run(degradation, "plain-110")]
    runs.append(write_run(degradation, "plain-56", 3, status="diverged"))
    for path in runs:
        (path / "config.json").write_text("{")
    names = {path.name: {} for path in degradation.iterdir()}
    write_sweep(degradation, names | {"plain-20-seed3": {"model.name": "plain-20", "seed": 3}})
    collection = collect([degradation])
    after = find(collection)
    assert (after.headlines, after.details) == (before.headlines, before.details)
    assert "Left out, so this may change: 3 of 15 runs (3 without a readable config)." in after.text
    shown = [(g.label, [r.status for r in g.results].count("damaged")) for g in collection.groups]
    assert sorted(shown) == [
        ("plain-110", 1),
        ("plain-20", 1),
        *(("plain-56", 0), ("plain-56", 1)),
        *(("resnet-20", 0), ("resnet-56", 0)),
    ]


def test_damaged_run_does_not_join_the_runs_on_another_data_set(
    degradation: Path, tmp_path: Path, write_run, write_sweep
):
    path = write_run(tmp_path / "other", "plain-20", 3, 0.4, 0.4, dataset="cifar10")
    (path / "config.json").write_text("{")
    write_sweep(tmp_path / "other", {path.name: {"model.name": "plain-20", "seed": 3}})
    groups = collect([degradation, tmp_path / "other"]).groups
    sizes = [(group.dataset, len(group.results)) for group in groups if group.model == "plain-20"]
    assert sizes == [("cifar10", 1), ("digits", 3)]


def test_cut_off_line_is_named_and_the_rest_is_read(degradation: Path):
    path = degradation / "plain-56-seed2" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    collection = collect([degradation])
    assert collection.problems == ["plain-56-seed2: metrics.jsonl line 20: damaged or cut short"]
    result = next(r for r in collection.results if r.name == "plain-56-seed2")
    assert result.curve("train", "error")[0].size == 10


def test_damaged_sweep_is_named_and_its_runs_are_read(degradation: Path):
    (degradation / "sweep.json").write_text("{")
    collection = collect([degradation])
    assert len(collection.results) == 12
    assert collection.problems[0].startswith("sweep.json: cannot be read")


@pytest.mark.parametrize("content", ["[]", '{"config": []}', '{"config": {"model": 3}}'])
def test_config_of_another_shape_stops_nothing(degradation: Path, content: str):
    (degradation / "plain-20-seed1" / "config.json").write_text(content)
    assert len(collect([degradation]).results) == 12


def test_runs_of_several_folders_keep_the_folders_name(tmp_path: Path, write_run):
    for name in ("first", "second"):
        write_run(tmp_path / name, "plain-20", train_error=0.1 * len(name))
    results = collect([tmp_path / "first", tmp_path / "second"]).results
    assert [result.name for result in results] == ["first/plain-20-seed0", "second/plain-20-seed0"]


def test_folder_of_one_run_is_a_report_of_one_run(tmp_path: Path, write_run):
    assert len(collect([write_run(tmp_path, "plain-20")]).results) == 1


def test_folder_without_runs_is_a_users_mistake(tmp_path: Path):
    with pytest.raises(InputError, match="no runs found"):
        collect([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        collect([tmp_path / "absent"])


def test_validation_rows_stand_in_for_test_rows(tmp_path: Path, write_run):
    path = write_run(tmp_path, "plain-20")
    rows = (path / "metrics.jsonl").read_text().replace('"test"', '"validation"')
    (path / "metrics.jsonl").write_text(rows)
    (result,) = collect([tmp_path]).results
    assert result.curve("test", "error")[0].size == 10


@pytest.mark.parametrize("again", ["same folder", "copy", "archive"])
def test_run_that_is_given_twice_counts_once_and_it_is_said(
    degradation: Path, tmp_path: Path, again: str
):
    twice = degradation
    if again == "copy":
        twice = shutil.copytree(degradation, tmp_path / "copy")
    if again == "archive":
        archive(degradation, twice := tmp_path / "kept")
    collection = collect([degradation, twice])
    assert {len(group.results) for group in collection.groups} == {3}
    (note,) = collection.notes
    assert note.startswith("12 runs are copies of another and not counted: ")
    assert note in find(collection).caveats


def test_run_that_another_folder_of_the_sweep_has_is_not_waited_for(
    tmp_path: Path, write_run, write_sweep
):
    names = {f"plain-20-seed{seed}": {"model.name": "plain-20", "seed": seed} for seed in range(3)}
    for folder, seeds in (("old", (0,)), ("new", (0, 1))):
        for seed in seeds:
            write_run(tmp_path / folder, "plain-20", seed, 0.1 + 0.01 * seed)
        write_sweep(tmp_path / folder, names)
    results = collect([tmp_path / "old", tmp_path / "new"]).results
    assert [result.status for result in sorted(results, key=lambda result: result.seed)] == [
        "completed", "completed", "missing",
    ]  # fmt: skip


@pytest.mark.parametrize("other", [{"config": "configs/cifar10.py"}, {"common": {"num_steps": 40}}])
def test_run_that_another_sweep_has_is_waited_for(other, tmp_path: Path, write_run, write_sweep):
    names = {f"plain-20-seed{seed}": {"model.name": "plain-20", "seed": seed} for seed in range(2)}
    write_run(tmp_path / "one", "plain-20", 0, 0.1)
    write_sweep(tmp_path / "one", names, config="configs/digits.py")
    for seed in range(2):
        write_run(tmp_path / "two", "plain-20", seed, 0.2 + 0.01 * seed)
    write_sweep(tmp_path / "two", names, **{"config": "configs/digits.py", **other})
    results = collect([tmp_path / "one", tmp_path / "two"]).results
    assert [result.status for result in results if result.seed == 1] == ["missing", "completed"]


def test_copy_under_another_name_is_no_second_seed(tmp_path: Path, write_run):
    for name in ("first", "second"):
        write_run(tmp_path, "plain-20", seed=3, name=name)
    assert [result.name for result in collect([tmp_path]).results] == ["first"]


def test_id_tells_an_old_copy_of_a_run_from_the_run(tmp_path: Path, write_run):
    for name, status in (("a-old", None), ("b-whole", "completed")):
        path = write_run(tmp_path, "plain-20", name=name, status=status) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "0123"}))
    (result,) = collect([tmp_path]).results
    assert result.name == "b-whole"


def test_copied_folder_that_was_trained_with_another_seed_is_no_copy(tmp_path: Path, write_run):
    for seed in range(2):
        path = write_run(tmp_path, "plain-20", seed) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "0123"}))
    assert [result.seed for result in collect([tmp_path]).results] == [0, 1]


def test_runs_without_a_seed_are_no_replicates_though_their_folders_names_agree(
    tmp_path: Path, write_run
):
    for parent, error in (("a", 0.1), ("b", 0.5)):
        path = write_run(tmp_path / parent / "runs", "plain-20", 0, error)
        for name in ("config.json", "summary.json"):
            record = json.loads((path / name).read_text())
            record.pop("seed", None)
            record.get("config", {}).pop("seed", None)
            (path / name).write_text(json.dumps(record))
    (group,) = collect([tmp_path / "a" / "runs", tmp_path / "b" / "runs"]).groups
    assert group.values("train_error") == [0.1, 0.5]


def keep_fingerprint(path: Path, data: object) -> None:
    record = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(record | {"data": data}))


def photographs(cats: int, *splits: str) -> dict:
    """What a run on an image folder keeps of it."""
    of_split = {"files": cats + 5, "classes": {"cat": cats, "dog": 5}}
    splits = splits or ("train", "test")
    return {"dataset": "digits", "class_names": "1 (2)", "splits": dict.fromkeys(splits, of_split)}


def test_runs_on_other_data_are_no_seeds_of_one_experiment_and_it_is_said(
    tmp_path: Path, write_run
):
    for seed, cats in enumerate((10, 10, 12)):
        keep_fingerprint(write_run(tmp_path, "plain-20", seed), photographs(cats))
    collection = collect([tmp_path])
    assert [(group.label, len(group.results)) for group in collection.groups] == [
        ("plain-20, data=1", 2),
        ("plain-20, data=2", 1),
    ]
    assert find(collection).caveats[-1] == (
        "Runs on digits saw different data, and are averaged and compared within one alone "
        "(data=1: plain-20-seed0, plain-20-seed1; data=2: plain-20-seed2). data=2 differs from "
        "data=1: test/cat has 12 images, had 10."
    )


def test_networks_on_other_data_are_not_compared(tmp_path: Path, write_run):
    for model, cats in (("plain-20", 10), ("plain-56", 12)):
        keep_fingerprint(write_run(tmp_path, model), photographs(cats))
    assert not any(arm.comparisons for arm in find(collect([tmp_path])).arms)


def test_run_that_diverged_alike_on_other_data_is_no_copy(tmp_path: Path, write_run):
    for name, cats in (("a", 10), ("b", 12)):
        path = write_run(tmp_path, "plain-20", name=name, status="diverged")
        keep_fingerprint(path, photographs(cats))
    assert len(collect([tmp_path]).results) == 2


@pytest.mark.parametrize(
    "other", [None, "damaged", {"dataset": "digits"}, photographs(10, "train", "validation")]
)
def test_one_kind_of_data_is_told_of_nothing(tmp_path: Path, write_run, other: object):
    keep_fingerprint(write_run(tmp_path, "plain-20", 0), photographs(10))
    keep_fingerprint(write_run(tmp_path, "plain-20", 1), other)
    collection = collect([tmp_path])
    assert [group.label for group in collection.groups] == ["plain-20"]
    assert collection.notes == []


def test_replicates_of_one_seed_are_one_seed_and_a_spread_of_their_own(tmp_path: Path, write_run):
    for seed in range(2):
        for number, error in enumerate((0.10, 0.14)):
            write_run(tmp_path, "plain-20", seed, error, error, name=f"seed{seed}-{number}")
    collection = collect([tmp_path])
    (group,) = collection.groups
    assert group.values("train_error") == pytest.approx([0.12, 0.12])
    assert group.count_seeds() == 2
    (line,) = find(collection).caveats
    assert line == (
        "plain-20 was run more than once with the same seed. Rounding alone gives a standard "
        "deviation of 2.83 points of training error (over seeds: 0.00) and 2.83 points of test "
        "error (over seeds: 0.00). Such runs count as one seed."
    )


def test_format_that_is_no_number_and_metrics_that_are_a_folder_stop_nothing(
    degradation: Path,
):
    path = degradation / "plain-20-seed0" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": None}))
    metrics = degradation / "plain-20-seed1" / "metrics.jsonl"
    metrics.unlink()
    metrics.mkdir()
    (degradation / "plain-20-seed2" / "metrics.jsonl").unlink()
    assert collect([degradation]).problems == [
        "plain-20-seed0: summary.json: format None is no number",
        "plain-20-seed1: metrics.jsonl: cannot be read (Is a directory)",
        "plain-20-seed2: metrics.jsonl: missing",
    ]


def test_runs_that_log_at_other_steps_do_not_differ_by_rounding_alone(tmp_path: Path, write_run):
    for period, error in ((10, 0.01), (300, 0.05)):
        path = write_run(tmp_path, "plain-20", 0, error, name=f"every{period}") / "config.json"
        record = json.loads(path.read_text())
        record["config"]["log_every"] = period
        path.write_text(json.dumps(record))
    assert "rounding" not in find(collect([tmp_path])).text
