"""RESULTS.md puts a run into a paper's row if and only if it is that row's experiment."""

import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from resnet_jax.errors import InputError
from resnet_jax.reporting import PaperTable, archive, write_results_md
from resnet_jax.runs import read_run


def cells(page: str, net: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith(f"| {net} ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def table(tmp_path: Path, write_run) -> PaperTable:
    """A paper's table of two nets, planned as `write_run` writes them."""
    names = ("plain-20", "resnet-20")
    runs = {name: write_run(tmp_path / "plan", name, dataset="cifar10") for name in names}
    configs = {name: read_run(path).config for name, path in runs.items()}
    return PaperTable("Depth", "v1 Figure 6", "python -m experiments.sweep --config=x", configs)


def record(tmp_path: Path, *tables: PaperTable) -> str:
    (tmp_path / "results").mkdir(exist_ok=True)
    write_results_md(tables, tmp_path / "results", tmp_path / "RESULTS.md")
    return (tmp_path / "RESULTS.md").read_text()


def test_row_gives_the_papers_number_and_ours_over_seeds(
    tmp_path: Path, table: PaperTable, write_run
):
    for seed, error in enumerate((0.08, 0.09, 0.10)):
        path = write_run(tmp_path / "runs", "resnet-20", seed, test_error=error, dataset="cifar10")
        info = json.loads((path / "config.json").read_text())
        info["commit"] = "0123456789abcdef" + "+" * (seed == 2)
        info["processor"] = "A processor, 2 cores"
        (path / "config.json").write_text(json.dumps(info))
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    page = record(tmp_path, table)
    (row,) = [row for row in cells(page, "resnet-20") if len(row) == 9]
    assert row[1:] == [
        *("8.75", "9.00 ± 1.00", "9.00", "3", "1.00 ± 0.00"),
        *("2 x cpu, A processor, 2 cores", "1 min 15 s", "0123456; 0123456+"),
    ]
    (row,) = [row for row in cells(page, "plain-20") if len(row) == 9]
    assert row[1:3] == ["–", "not measured"]


def test_run_whose_config_cannot_be_read_is_in_no_papers_row_and_is_named(
    tmp_path: Path, table: PaperTable, write_run
):
    write_run(tmp_path / "runs", "resnet-20", dataset="cifar10")
    write_run(tmp_path / "runs", "resnet-20", 1, 0.5, 0.6, dataset="cifar10")
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    (tmp_path / "results" / "depth" / "resnet-20-seed1" / "config.json").unlink()
    page = record(tmp_path, table)
    (row,) = [row for row in cells(page, "resnet-20") if len(row) == 9]
    assert (row[2], row[4]) == ("2.00", "1")
    assert "Damaged files:\n\n- resnet-20-seed1: config.json: missing\n" in page


def test_row_is_one_for_each_kind_of_data(tmp_path: Path, table: PaperTable, write_run):
    for seed, files in enumerate((10, 12)):
        path = write_run(tmp_path / "runs", "resnet-20", seed, dataset="cifar10") / "config.json"
        data = {"dataset": "cifar10", "class_names": "1", "splits": {"train": {"files": files}}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data": data}))
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    page = record(tmp_path, table)
    rows = [row for net in ("resnet-20, data=1", "resnet-20, data=2") for row in cells(page, net)]
    assert [row[4] for row in rows if len(row) == 9] == ["1", "1"]
    assert "train has 12 files, had 10" in page


def test_run_of_another_recipe_stands_under_its_own_heading_only(
    tmp_path: Path, table: PaperTable, write_run, write_sweep
):
    write_run(tmp_path / "runs", "resnet-20", dataset="cifar10", steps=100)
    write_sweep(
        tmp_path / "runs",
        {"resnet-20-seed0": {}},
        title="In short",
        command="python -m experiments.sweep --num_steps=100",
    )
    archive(tmp_path / "runs", tmp_path / "results" / "short")
    (tmp_path / "results" / "short" / "notes.md").write_text(
        "# Shortened\n\nA *note*.\n\n## More\n"
    )
    page = record(tmp_path, table)
    (row,) = [row for row in cells(page, "resnet-20") if len(row) == 9]
    assert row[2] == "not measured"
    own = page[page.index("## Shortened") :]
    assert "A *note*.\n\n### More" in own
    assert "2.00" in cells(own, "resnet-20")[0]
    assert "    python -m experiments.sweep --num_steps=100 \\\n" not in own
    assert "    python -m experiments.sweep --num_steps=100\n" in own
    assert (tmp_path / "results" / "short" / "figure.svg").is_file()
    assert "(results/short/figure.svg)" in own


def test_one_net_is_one_row_however_it_is_written_down(
    tmp_path: Path, table: PaperTable, write_run
):
    write_run(tmp_path / "runs", "resnet-20", dataset="cifar10", order="original", option="A")
    write_run(tmp_path / "runs", "resnet-20", seed=1, dataset="cifar10", order="bn_after_add")
    archive(tmp_path / "runs", tmp_path / "results" / "orders")
    (row,) = [row for row in cells(record(tmp_path, table), "resnet-20") if len(row) == 9]
    assert row[4] == "1"


def test_one_schedule_is_one_row_however_it_is_written_down(
    tmp_path: Path, table: PaperTable, write_run
):
    for config in table.configs.values():
        config["schedule"] |= {"warmup": "none", "warmup_steps": 400}
    changes = [{"boundaries": [150, 225]}, {"warmup_steps": 30}, {"boundaries": [150, 226]}]
    for seed, schedule in enumerate(changes):
        path = write_run(tmp_path / "runs", "resnet-20", seed, dataset="cifar10") / "config.json"
        config = json.loads(path.read_text())
        config["config"]["schedule"] |= {"warmup": "none", **schedule}
        path.write_text(json.dumps(config))
    archive(tmp_path / "runs", tmp_path / "results" / "orders")
    (row,) = [row for row in cells(record(tmp_path, table), "resnet-20") if len(row) == 9]
    assert row[4] == "2"


def test_diverged_runs_are_told_and_not_averaged_in(tmp_path: Path, table: PaperTable, write_run):
    write_run(tmp_path / "runs", "resnet-20", dataset="cifar10", test_error=0.08)
    write_run(tmp_path / "runs", "resnet-20", seed=1, dataset="cifar10", status="diverged")
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    (row,) = [row for row in cells(record(tmp_path, table), "resnet-20") if len(row) == 9]
    assert row[2] == "8.00 (1 diverged)"


def test_seeds_that_have_not_completed_are_told(tmp_path: Path, table: PaperTable, write_run):
    for seed in range(5):
        status = "completed" if seed < 2 else None
        place = tmp_path / "results" / "depth"
        write_run(place, "resnet-20", seed, dataset="cifar10", status=status)
    (row,) = [row for row in cells(record(tmp_path, table), "resnet-20") if len(row) == 9]
    assert row[4] == "2 of 5"


def test_run_that_two_archives_have_counts_once(tmp_path: Path, table: PaperTable, write_run):
    for place, name, error in (("a", "one", 0.1), ("b", "one", 0.1), ("b", "again", 0.2)):
        folder = tmp_path / "results" / place
        write_run(folder, "resnet-20", dataset="cifar10", test_error=error, name=name)
    (row,) = [row for row in cells(record(tmp_path, table), "resnet-20") if len(row) == 9]
    assert row[2] == "15.00"


def test_how_it_was_measured_is_that_of_completed_runs(tmp_path: Path, table, write_run):
    for seed, status in enumerate(("diverged", "completed", "completed")):
        path = write_run(tmp_path / "runs", "resnet-20", seed, dataset="cifar10", status=status)
        if status == "diverged":
            summary = json.loads((path / "summary.json").read_text())
            summary |= {"wall_seconds": 1.0, "images_per_second": 1.0}
            (path / "summary.json").write_text(json.dumps(summary))
    write_run(tmp_path / "runs", "resnet-20", 3, dataset="cifar10", status="diverged")
    for path in (tmp_path / "runs" / "resnet-20-seed3").glob("summary.json"):
        path.write_text(path.read_text().replace("75.0", "2.0"))
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    rows = cells(record(tmp_path, table), "resnet-20")
    (ours,) = [row for row in rows if len(row) == 9 and "diverged)" in row[2]]
    assert ours[7] == "1 min 15 s"
    (measured,) = [row for row in rows if len(row) == 7]
    assert measured[1:4] == ["300", "200", "1 min 15 s"]


def test_what_few_look_for_is_folded(tmp_path: Path, table: PaperTable, write_run):
    unmeasured = "<summary>2 rows, none measured yet, and their command</summary>\n\n| Network |"
    assert unmeasured in record(tmp_path, table)
    write_run(tmp_path / "runs", "resnet-20", dataset="cifar10")
    archive(tmp_path / "runs", tmp_path / "results" / "depth")
    page = record(tmp_path, table)
    assert unmeasured not in page
    folded = page[page.index("<summary>How it was measured") : page.index("</details>")]
    assert "| Commit |" in folded
    assert "    train resnet-20" in folded


def test_sentences_are_folded_where_they_are_many(tmp_path: Path, write_run):
    def page_on(*datasets: str) -> str:
        runs = tmp_path / datasets[-1]
        for dataset, family, depth in itertools.product(datasets, ("plain", "resnet"), (20, 56)):
            name = f"{dataset}-{family}-{depth}"
            write_run(runs, f"{family}-{depth}", dataset=dataset, name=name)
        archive(runs, tmp_path / "results" / "sets")
        return record(tmp_path)

    assert "further sentences" not in page_on("digits")
    page = page_on("digits", "mnist", "kmnist", "fashion_mnist")
    headlines, details = page.split("<summary>8 further sentences</summary>")
    assert headlines.count("Undecided (one seed) whether") == 4
    assert details.count("Plain networks – Undecided") == 4


def test_links_lead_to_folders_of_any_name(tmp_path: Path, write_run):
    for name in ("my runs (1)", "a#b"):
        write_run(tmp_path / "results" / name)
        folder = tmp_path / "results" / name / "analysis" / "responses"
        folder.mkdir(parents=True)
        (folder / "finding.md").write_text("Smaller.\n")
        (folder / "figure.svg").write_text("<svg/>")
        (folder / "data.csv").write_text("network,std\n")
    write_results_md([], tmp_path / "results", page := tmp_path / "RESULTS.md")
    links = re.findall(r"(?m)^(?:!|Data: )\[.*\]\(([^\s()#]*)\)$", page.read_text())
    assert len(links) == 6
    assert all((tmp_path / unquote(link)).is_file() for link in links)


def test_note_alone_is_a_section(tmp_path: Path):
    (tmp_path / "results" / "drill").mkdir(parents=True)
    (tmp_path / "results" / "drill" / "notes.md").write_text("# Killed runs\n\nNone was lost.\n")
    assert record(tmp_path).endswith("## Killed runs\n\nNone was lost.\n")


def test_page_begins_with_links_to_all_sections_runs_first(tmp_path: Path, write_run):
    (tmp_path / "results" / "a-drill").mkdir(parents=True)
    (tmp_path / "results" / "a-drill" / "notes.md").write_text(
        "# Killed runs: none lost\n\nNone.\n"
    )
    write_run(tmp_path / "results" / "short")
    (tmp_path / "results" / "short" / "notes.md").write_text("# ResNet's λ, in 4,000 steps\n")
    page = record(tmp_path)
    assert re.findall(r"(?m)^- \[(.*)\]\((.*?)\)", page.partition("\n## ")[0]) == [
        ("ResNet's λ, in 4,000 steps", "#resnets-λ-in-4000-steps"),
        ("Killed runs: none lost", "#killed-runs-none-lost"),
    ]
    assert re.findall("(?m)^## (.*)$", page)[1:] == [
        "ResNet's λ, in 4,000 steps", "Killed runs: none lost",
    ]  # fmt: skip


def test_sections_of_one_title_are_linked_to_one_by_one(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "notes.md").write_text("# Killed runs\n\nNone.\n")
    links = re.findall(r"(?m)^- \[Killed runs\]\((.*?)\)", record(tmp_path))
    assert links == ["#killed-runs", "#killed-runs-1"]


def test_finding_at_the_top_says_if_its_section_has_reservations(tmp_path: Path, write_run):
    for model, seed in itertools.product(("plain-20", "plain-56"), range(2)):
        write_run(
            tmp_path / "results" / "short", model, seed, 0.01 * seed + 0.4 * (model != "plain-20")
        )
    find_line = lambda: re.findall(r"(?m)^- \[.*", record(tmp_path))[0]
    assert "plain-56's training error" in find_line()
    assert "reservations" not in find_line()
    for seed, commit in enumerate(("0123abcd", "4567defa")):
        path = tmp_path / "results" / "short" / f"plain-56-seed{seed}" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": commit}))
    assert find_line().endswith(" With reservations, see there.")


def test_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no folder .*results"):
        write_results_md([], tmp_path / "results", tmp_path / "RESULTS.md")
