"""The given sweeps are what they say: the papers' tables, under configs that can run."""

import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

from configs import cifar10
from resnet_jax.data import folder_to_tfds
from resnet_jax.errors import InputError
from resnet_jax.reporting import naming, papers
from resnet_jax.sweeps import grid, plan
from resnet_jax.training.run import check_dataset

FOLDER = Path("configs/sweeps")
REPOSITORY = Path(__file__).parents[2]
SWEEPS = sorted(path.name for path in (REPOSITORY / FOLDER).glob("[!_]*.py"))
READY = [name for name in SWEEPS if name != "imagenet_table2.py"]


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPOSITORY)


def planned(name: str, **options) -> list[plan.PlannedRun]:
    return plan.plan(grid.load(str(FOLDER / name)), **options)


def architectures(name: str) -> list:
    """The net of each run, less what belongs to the recipe."""
    return [naming.architecture(naming.flatten(run.config.to_dict())) for run in planned(name)]


@pytest.mark.parametrize("name", READY)
def test_every_net_of_a_sweep_can_run(name: str):
    mistakes = []
    for run in planned(name, pattern="seed0$"):
        try:
            check_dataset(run.config)
        except InputError as error:
            mistakes.append(f"{run.name}: {error}")
    assert not mistakes


@pytest.mark.parametrize("name", READY)
def test_all_nets_come_with_one_seed_before_any_comes_with_the_next(name: str):
    seeds = [run.config.seed for run in planned(name)]
    assert seeds == sorted(seeds)
    assert seeds.count(0) * len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", SWEEPS)
def test_docstring_has_the_command_that_launches_the_sweep(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert f"python -m experiments.sweep --config={FOLDER / name}" in text


@pytest.mark.parametrize(
    ("name", "source", "dataset"),
    [
        ("cifar10_figure6.py", "v1 Table 6", "cifar10"),
        ("cifar10_identity_table1.py", "v2 Table 1", "cifar10"),
        ("cifar10_identity_table2.py", "v2 Table 2", "cifar10"),
        ("cifar10_table3.py", "v2 Table 3", "cifar10"),
        ("cifar100_table3.py", "v2 Table 3", "cifar100"),
    ],
)
def test_every_number_of_the_table_has_its_run(name: str, source: str, dataset: str):
    have = architectures(name)
    numbers = [
        number
        for number in papers.NUMBERS
        if (number.source, number.dataset) == (source, dataset) and number.batch_size is None
    ]
    assert numbers
    for number in numbers:
        axes = {f"model.{axis}": value for axis, value in number.axes.items()}
        assert naming.architecture({"model.name": number.model, **axes}) in have, number


def test_nets_of_batches_of_64_follow_the_releases_recipe():
    found = []
    for run in planned("cifar10_table3.py"):
        settings = naming.flatten(run.config.to_dict())
        if settings["batch_size"] == 64:
            found += [papers.lookup(settings)]
            assert not papers.recipe_diff(settings, found[-1])
    assert {number.error for number in found} == {4.62}


def test_second_paper_warms_every_run_up_for_400_steps_at_a_tenth_of_the_rate():
    for run in planned("cifar10_identity_table1.py") + planned("cifar10_identity_table2.py"):
        schedule = run.config.schedule
        assert (schedule.warmup, schedule.warmup_steps, schedule.warmup_learning_rate) == (
            "constant",
            400,
            0.01,
        )


@pytest.mark.parametrize("name", ["preact-resnet-56", "cifar-preact-resnet-56"])
def test_second_papers_networks_warm_up_under_both_names(name: str):
    assert cifar10.get_config(name).schedule.warmup == "constant"


def test_figure_6_follows_the_first_papers_recipe():
    by_name = {run.config.model.name: run.config for run in planned("cifar10_figure6.py")}
    assert {config.num_steps for config in by_name.values()} == {64_000}
    assert by_name["plain-56"].schedule.warmup == "none"
    assert by_name["resnet-110"].schedule.warmup == "until_error"


def test_sweep_whose_config_is_missing_names_the_file(tmp_path: Path):
    sweep = tmp_path / "sweep.py"
    sweep.write_text(
        'TITLE = "t"\nPAPER = None\nRECIPE = "other"\nCONFIG = "configs/absent.py"\n'
        "def get_sweep(): return []\n"
    )
    with pytest.raises(InputError, match=r"CONFIG='configs/absent.py': no such Python file"):
        grid.load(str(sweep))


def test_every_net_of_imagenets_table_can_run_where_imagenet_is_prepared(tmp_path: Path):
    for folder, name in itertools.product(("train", "val"), ("n01440764", "n01443537")):
        (tmp_path / "tree" / folder / name).mkdir(parents=True)
        Image.new("RGB", (300, 280)).save(tmp_path / "tree" / folder / name / "0.JPEG")
    folder_to_tfds.prepare("imagenet2012", str(tmp_path), str(tmp_path / "tree"))
    runs = planned("imagenet_table2.py")
    assert len(runs) == 4
    for run in runs:
        check_dataset(run.config.replace(**{"dataset.data_dir": str(tmp_path)}))


def test_sweep_of_the_documentation_is_one(tmp_path: Path):
    text = (REPOSITORY / "docs/sweeps_and_reports.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(TITLE.+?)```", text, re.DOTALL)
    (tmp_path / "width.py").write_text(example)
    sweep = grid.load(str(tmp_path / "width.py"))
    runs = plan.plan(sweep)
    assert [run.name for run in runs[:2]] == ["plain-20-width8-seed0", "plain-20-width16-seed0"]
    assert (len(runs), runs[0].config.num_steps) == (8, 200)
    plan.check(sweep, runs, tmp_path, {})
