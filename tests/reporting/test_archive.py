"""Archived runs say in a few KB what the whole runs say."""

import itertools
import json
from pathlib import Path

import pytest

from resnet_jax.errors import InputError
from resnet_jax.reporting import archive, write_report
from resnet_jax.runs import read_run


def test_report_of_archived_runs_has_the_same_numbers(tmp_path: Path, write_run):
    runs, kept = tmp_path / "runs", tmp_path / "results" / "depth"
    for model, error in (("plain-20", 0.1), ("plain-56", 0.5)):
        write_run(runs, model, train_error=error)
    assert archive(runs, kept) == ["plain-20-seed0", "plain-56-seed0"]
    before, after = (
        write_report([runs], tmp_path / "before"),
        write_report([kept], tmp_path / "after"),
    )
    assert after.finding == before.finding
    assert after.files["results.csv"].read_text() == before.files["results.csv"].read_text()


def test_archived_run_is_a_few_kilobytes_and_keeps_the_ends_of_its_curves(
    tmp_path: Path, write_run
):
    path = write_run(tmp_path / "runs")
    rows = [
        {"step": step, "split": split, "error": 1 / (3 * step), "images_per_second": 123.4567}
        for step in range(100, 64_001, 100)
        for split in ("train", "test")
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    archive(tmp_path / "runs", tmp_path / "kept")
    kept = read_run(tmp_path / "kept" / path.name)
    assert kept.problems == []
    for split in ("train", "test"):
        steps = [row["step"] for row in kept.rows if row["split"] == split]
        assert len(steps) == 40
        assert steps[-1] == 64_000
        assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    assert kept.rows[-1]["error"] == float(f"{1 / 192_000:.5g}")
    assert sum(file.stat().st_size for file in kept.path.iterdir()) < 10_000


def test_places_of_the_machine_stay_behind(tmp_path: Path, write_run, write_sweep):
    runs = tmp_path / "secret"
    path = write_run(runs)
    info = json.loads((path / "config.json").read_text())
    info["config"]["dataset"]["data_dir"] = "/secret/data"
    info["command"] = (
        "python -m experiments.train --config=configs/cifar10.py:plain-20,"
        f"dataset.data_dir=/secret/data,seed=0 --config.seed=0 --workdir={path}"
    )
    (path / "config.json").write_text(json.dumps(info))
    common = {"dataset.data_dir": "/secret/data", "num_steps": 300}
    command = "python -m experiments.sweep --override=dataset.data_dir=/secret/data --seeds=1"
    names = {"plain-20-seed0": {"model.name": "plain-20", **common}, "plain-20-seed1": common}
    write_sweep(runs, names, common=common, command=f"{command} --workdir={runs}")

    archive(runs, tmp_path / "results" / "depth")
    kept = tmp_path / "results" / "depth"
    texts = [file.read_text() for file in kept.rglob("*") if file.is_file()]
    assert not [text for text in texts if "secret" in text]
    told = json.loads((kept / "plain-20-seed0" / "config.json").read_text())
    assert told["command"] == (
        "python -m experiments.train --config=configs/cifar10.py:plain-20,seed=0 --config.seed=0 "
        "--workdir=runs/depth/plain-20-seed0"
    )
    sweep = json.loads((kept / "sweep.json").read_text())
    assert sweep["command"] == "python -m experiments.sweep --seeds=1 --workdir=runs/depth"
    assert sweep["common"] == {"num_steps": 300}
    # A run that has not finished is not awaited in the archive.
    assert [run["name"] for run in sweep["runs"]] == ["plain-20-seed0"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--config=c.py:plain-20 --workdir PLACE", "--config=c.py:plain-20 WORKDIR"),
        ("--resume -workdir=PLACE --x", "--resume WORKDIR --x"),
        ("--override dataset.data_dir=/secret --seeds 3", "--seeds 3"),
        ("--override=num_steps=3,dataset.data_dir=/secret", "--override=num_steps=3"),
        ("--config.dataset.data_dir /secret --config.seed 3", "--config.seed 3"),
        (
            """--config="c.py:plain-20,dataset.data_dir='/secret,b',x=(0.3,0.6),lr=1e-3" """,
            "'--config=c.py:plain-20,x=(0.3,0.6),lr=1e-3'",
        ),
        ("--config=c.py:plain-20,dataset.data_dir=gs://secret,b", "--config=c.py:plain-20"),
        ("--config c.py:dataset.data_dir=/secret", "--config=c.py"),
    ],
)
def test_flags_however_they_are_written_name_no_place_of_the_machine(
    tmp_path: Path, write_run, given: str, kept: str
):
    path = write_run(tmp_path / "runs") / "config.json"
    command = f"python -m experiments.train {given.replace('PLACE', str(path.parent))}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))
    archive(tmp_path / "runs", tmp_path / "kept")
    told = read_run(tmp_path / "kept" / path.parent.name).info["command"]
    expected = kept.replace("WORKDIR", f"--workdir=runs/kept/{path.parent.name}")
    assert told == f"python -m experiments.train {expected}"


def test_part_of_a_sweep_joins_what_is_archived_of_it(tmp_path: Path, write_run, write_sweep):
    for folder, seed in (("first", 0), ("second", 1)):
        write_run(tmp_path / folder, seed=seed)
        write_sweep(tmp_path / folder, {f"plain-20-seed{seed}": {"model.name": "plain-20"}})
        archive(tmp_path / folder, tmp_path / "kept")
    sweep = json.loads((tmp_path / "kept" / "sweep.json").read_text())
    assert [run["name"] for run in sweep["runs"]] == ["plain-20-seed0", "plain-20-seed1"]


def test_findings_of_analyses_are_kept(tmp_path: Path, write_run):
    runs = tmp_path / "runs"
    path = write_run(runs)
    for folder in (runs, path):
        (folder / "analysis" / "responses").mkdir(parents=True)
        command = f"`analyze --data_dir=/secret --workdir={path}`"
        (folder / "analysis" / "responses" / "finding.md").write_text(f"Smaller.\n\n{command}\n")
        (folder / "analysis" / "responses" / "figure.svg").write_text("<svg/>")
        (folder / "analysis" / "responses" / "data.csv").write_text("network,std\nplain-20,1.02\n")
        (folder / "analysis" / "responses" / "figure.png").write_bytes(b"large")
    archive(runs, tmp_path / "kept")
    kept = sorted((tmp_path / "kept").glob("**/responses/*"))
    folders = [tmp_path / "kept" / f / "analysis/responses" for f in (".", path.name)]
    names = ("data.csv", "figure.svg", "finding.md")
    assert kept == sorted(folder / name for folder in folders for name in names)
    text = (folders[0] / "finding.md").read_text()
    assert text == f"Smaller.\n\n`analyze --workdir=runs/kept/{path.name}`\n"


@pytest.mark.parametrize("name", ["plain-56", "8"])
def test_sentence_of_a_study_is_kept_whatever_the_folder_is_called(
    tmp_path: Path, write_run, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    write_run(Path(name), "plain-20")
    said = "Responses: plain-56 0.85 and resnet-56 0.28 (5 seeds each)."
    finding = Path("analysis", "responses", "finding.md")
    (Path(name) / finding).parent.mkdir(parents=True)
    command = f"`analyze --workdir={name} --workdir={name}/plain-20-seed0` (cpu, JAX 0.11.8)"
    measured = f"{said}\n\nMeasured with images 8.\n\n"
    (Path(name) / finding).write_text(f"{measured}{command}\n")
    archive(Path(name), Path("kept"))
    assert (Path("kept") / finding).read_text() == (
        f"{measured}`analyze --workdir=runs/kept --workdir=runs/kept/plain-20-seed0` (cpu, JAX "
        "0.11.8)\n"
    )


def test_study_of_an_earlier_copy_goes_with_it(tmp_path: Path, write_run):
    path = write_run(tmp_path / "runs")
    (path / "analysis" / "responses").mkdir(parents=True)
    (path / "analysis" / "responses" / "finding.md").write_text("Smaller.\n")
    archive(tmp_path / "runs", tmp_path / "kept")
    (path / "analysis" / "responses" / "finding.md").unlink()
    archive(tmp_path / "runs", tmp_path / "kept")
    assert not list((tmp_path / "kept").rglob("finding.md"))


@pytest.mark.parametrize("what", ["config", "run_id", "seed"])
def test_another_run_of_the_same_name_is_not_replaced(tmp_path: Path, write_run, what: str):
    for folder, value in (("a", 1), ("b", 2)):
        path = write_run(tmp_path / folder, "plain-20", steps=300 * value) / "config.json"
        info = json.loads(path.read_text())
        info["config"]["num_steps"] = 300
        change = {"config": {"num_steps": value}, "seed": {"seed": value}}.get(what, {})
        info["config"] |= change
        info["run_id"] = f"{value}" if what == "run_id" else "1"
        path.write_text(json.dumps(info))
    archive(tmp_path / "a", tmp_path / "kept")
    before = {file: file.read_text() for file in (tmp_path / "kept").rglob("*.json*")}
    with pytest.raises(InputError, match="plain-20-seed0 there is another run; remove it"):
        archive(tmp_path / "b", tmp_path / "kept")
    assert {file: file.read_text() for file in (tmp_path / "kept").rglob("*.json*")} == before


def write_finding(folder: Path, text: str) -> Path:
    path = folder / "analysis" / "responses" / "finding.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_finding_on_a_single_run_goes_with_that_run(tmp_path: Path, write_run):
    kept, names = tmp_path / "kept", ("plain-20-seed0", "plain-20-seed1")
    for seed, name in enumerate(names):
        path = write_run(tmp_path / "runs", seed=seed)
        write_finding(path, f"Of {name}.\n\n`analyze --workdir={path}`\n")
        archive(path, kept)
    texts = [(kept / name / "analysis/responses/finding.md").read_text() for name in names]
    command = "`analyze --workdir=runs/kept/{}`\n"
    assert texts == [f"Of {name}.\n\n{command.format(name)}" for name in names]
    assert len(list(kept.rglob("finding.md"))) == 2


def test_finding_of_another_folder_is_not_replaced(tmp_path: Path, write_run):
    for seed, folder in enumerate("ab"):
        write_run(tmp_path / folder, seed=seed)
        write_finding(tmp_path / folder, f"Of {folder}.\n")
    archive(tmp_path / "a", tmp_path / "kept")
    write_finding(tmp_path / "a", "Of a, measured again.\n")
    archive(tmp_path / "a", tmp_path / "kept")
    with pytest.raises(InputError, match="analysis/responses there may be of another folder"):
        archive(tmp_path / "b", tmp_path / "kept")
    (finding,) = (tmp_path / "kept").rglob("finding.md")
    assert finding.read_text() == "Of a, measured again.\n"
    assert not (tmp_path / "kept" / "plain-20-seed1").exists()


@pytest.mark.parametrize(
    "other",
    [{"name": "other"}, {"config": "other.py"}, {"recipe": "paper"}, {"common": {"num_steps": 7}}],
)
def test_another_sweep_is_not_replaced(tmp_path: Path, write_run, write_sweep, other: dict):
    common = {"dataset.data_dir": "/data"}
    for folder, seed, more in (("a", 0, {"common": common}), ("b", 1, {}), ("c", 2, other)):
        write_run(tmp_path / folder, seed=seed)
        write_sweep(tmp_path / folder, {f"plain-20-seed{seed}": {}}, **more)
    archive(tmp_path / "a", tmp_path / "kept")
    archive(tmp_path / "b", tmp_path / "kept")  # The same sweep, with its data elsewhere.
    before = sorted((file, file.read_text()) for file in (tmp_path / "kept").rglob("*.json*"))
    with pytest.raises(InputError, match=rf"holds another sweep \({'|'.join(other)}|num_steps"):
        archive(tmp_path / "c", tmp_path / "kept")
    after = sorted((file, file.read_text()) for file in (tmp_path / "kept").rglob("*.json*"))
    assert after == before


@pytest.mark.parametrize("text", ["{", "{}", '{"runs": [{}]}', "[]"])
@pytest.mark.parametrize("damaged", ["runs", "kept"])
def test_damaged_file_of_a_sweep_is_refused_before_anything_changes(
    tmp_path: Path, write_run, write_sweep, damaged: str, text: str
):
    path = write_run(tmp_path / "runs")
    write_finding(path, "Smaller.\n")
    write_sweep(tmp_path / "runs", {path.name: {}})
    archive(tmp_path / "runs", tmp_path / "kept")
    (tmp_path / damaged / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json: cannot be read .*; restore or remove it"):
        archive(tmp_path / "runs", tmp_path / "kept")
    assert len(list((tmp_path / "kept").rglob("finding.md"))) == 1


@pytest.mark.parametrize("text", ["{", "{}", "[]", None])
def test_run_without_a_readable_config_is_refused_by_name(
    tmp_path: Path, write_run, text: str | None
):
    for model in ("plain-20", "resnet-56"):
        path = write_run(tmp_path / "runs", model)
    (path / "config.json").unlink()
    if text is not None:
        (path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json of resnet-56-seed0 is missing or damaged"):
        archive(tmp_path / "runs", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_links_to_runs_are_archived_under_their_own_names(tmp_path: Path, write_run):
    runs, names = tmp_path / "runs", ["plain-20-seed0", "plain-20-seed1"]
    runs.mkdir()
    for seed, name in enumerate(names):
        path = write_run(tmp_path / f"job{seed}", seed=seed, name="run")
        (runs / name).symlink_to(path)
    assert archive(runs, tmp_path / "kept") == names
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == names
    assert [read_run(tmp_path / "kept" / name).config["seed"] for name in names] == [0, 1]


def test_run_that_is_the_current_folder_is_archived_under_that_folders_name(
    tmp_path: Path, write_run, monkeypatch: pytest.MonkeyPatch
):
    path = write_run(tmp_path / "runs")
    monkeypatch.chdir(path)
    assert archive(Path(), tmp_path / "kept") == [path.name]
    assert read_run(tmp_path / "kept" / path.name).problems == []


def test_two_runs_of_one_name_are_refused(tmp_path: Path, write_run):
    path = write_run(tmp_path, name="run")
    write_run(path, seed=1, name="run")
    with pytest.raises(InputError, match="two finished runs are called run"):
        archive(path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_folder_without_a_finished_run_is_refused(tmp_path: Path, write_run):
    write_run(tmp_path / "runs", status=None)
    with pytest.raises(InputError, match="no finished run to archive"):
        archive(tmp_path / "runs", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
