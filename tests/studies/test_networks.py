"""What a study gets of a network: its images, without its whole data set."""

import io
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from nets import IMAGES, LABELS
from PIL import Image

from configs import digits, imagenet
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe
from resnet_jax.runs.folder import write_config
from resnet_jax.studies import growth, networks, sharpness


class Photographs:
    """Many records, of which each that is read is counted."""

    class_names = ("cat", "dog")

    def __init__(self):
        self.read = []

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        self.read.append(index)
        file = io.BytesIO()
        Image.new("RGB", (40, 30), (int(index) % 256, 0, 0)).save(file, "PNG")
        return EncodedImage(file.getvalue(), int(index) % 2, str(index))


def test_streamed_run_reads_only_the_images_that_are_asked_for(monkeypatch):
    source = Photographs()
    monkeypatch.setattr(networks.datasets, "open_records", lambda *_: source)
    config = imagenet.get_config()
    config.dataset.image_size, config.dataset.mean, config.dataset.std = 16, "imagenet", "imagenet"
    config.streaming.scales, config.streaming.shorter_side = (20, 24), 20
    network = networks.Network(Recipe.from_config(config), None, "resnet-50")
    images, labels = network.images("train", 4)
    assert images.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1])
    assert network.model.num_classes == 2
    assert len(source.read) <= 5  # one more for the normalisation, which is constant


def test_untrained_network_has_no_later_weights():
    network = networks.Network(Recipe.from_config(digits.get_config("plain-8")), None, "plain-8")
    with pytest.raises(InputError, match="step=5: plain-8 is not trained"):
        network.at(5)


@pytest.mark.parametrize(
    ("config", "depth", "name"),
    [
        (digits.get_config("plain-8"), 14, "plain-14"),
        (digits.get_config("plain-8"), 50, "cifar-plain-50"),
        (digits.get_config("cifar-plain-50"), 56, "plain-56"),
        (imagenet.get_config("resnet-18"), 34, "resnet-34"),
    ],
)
def test_network_of_another_depth_is_of_the_same_kind(config, depth, name):
    network = networks.Network(Recipe.from_config(config), None, "")
    assert network.of_depth(depth).recipe.model.name == name


def test_very_deep_network_of_a_shallow_one_has_its_blocks_in_loops():
    network = networks.Network(Recipe.from_config(digits.get_config("resnet-8")), None, "")
    assert [network.of_depth(depth).recipe.scan_blocks for depth in (56, 218)] == [False, True]


PLAIN = Recipe.from_config(digits.get_config("plain-8"))


def begun(folder: Path, recipe=PLAIN, steps=(), status="completed", data=None) -> str:
    """Writes a run's folder with names of checkpoints and, if it has a status, its summary."""
    folder.mkdir()
    write_config(folder, recipe.to_dict(), devices="cpu", data=data)
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    if status:
        (folder / "summary.json").write_text(f'{{"status": "{status}", "train_error": 0}}')
    return str(folder)


@pytest.mark.parametrize(
    ("given", "begins"), [("init_from", "as given"), ("converted_from", "as converted")]
)
def test_network_before_training_has_the_weights_that_it_was_given(
    given, begins, tmp_path, monkeypatch
):
    weights = {"params": {"kernel": np.ones(1)}, "batch_stats": {}}
    read = lambda folder, step: SimpleNamespace(variables=weights if step == 0 else None)
    monkeypatch.setattr(networks, "load_weights", read)
    workdir = begun(tmp_path / "run", PLAIN.replace(**{given: "elsewhere"}), steps=(0, 300))
    (network,) = networks.collect([workdir], untrained=True)
    assert network.steps == [0]
    assert network.begins == begins
    for found in (network.at(0), network.last(), network.ready(IMAGES)):
        np.testing.assert_array_equal(found["params"]["kernel"], 1)


def test_weights_of_another_run_that_are_not_kept_are_no_random_ones(tmp_path):
    recipe = PLAIN.replace(init_from="elsewhere")
    workdir = begun(tmp_path / "run", recipe, steps=(300,))
    for network in networks.collect([workdir], untrained=True) + networks.collect([], [recipe]):
        with pytest.raises(InputError, match="were those of 'elsewhere'"):
            network.ready(IMAGES)
        assert network.variant(name="plain-14").recipe.init_from is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_steps", 600, ("num_steps=300", "num_steps=600")),
        ("batch_size", 64, ("batch_size=128", "batch_size=64")),
        ("dataset.name", "cifar10", ("dataset=digits", "dataset=cifar10")),
    ],
)
def test_networks_of_different_lengths_or_data_are_told_apart(
    field, value, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(networks, "check_dataset", lambda recipe: None)
    other = PLAIN.replace(**{"model.name": "resnet-8", field: value})
    workdirs = [begun(tmp_path / "a"), begun(tmp_path / "b", PLAIN.replace(seed=1))]
    workdirs.append(begun(tmp_path / "c", other))
    short, long = words
    labels = [network.label for network in networks.collect(workdirs)]
    assert labels == [f"plain-8, {short}", f"plain-8, {short}", f"resnet-8, {long}"]
    assert [network.label for network in networks.collect(workdirs[:2])] == ["plain-8"] * 2


@pytest.mark.parametrize("untrained", [False, True])
def test_untrained_networks_of_different_data_are_no_seeds_of_one(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "check_dataset", lambda recipe: None)
    others = {"dataset.name": "image_folder", "dataset.image_size": 20, "dataset.data_dir": "."}
    larger = {**others, "dataset.image_size": 24, "seed": 2}
    recipes = [PLAIN, PLAIN.replace(**others, seed=1), PLAIN.replace(**larger)]
    workdirs = []
    if untrained:
        workdirs = [begun(tmp_path / str(recipe.seed), recipe) for recipe in recipes]
    found = networks.collect(workdirs, () if untrained else recipes, untrained=untrained)
    assert [network.label for network in found] == [
        "plain-8, dataset=digits",
        "plain-8, image_size=20, dataset=image_folder",
        "plain-8, image_size=24, dataset=image_folder",
    ]
    deeper = networks.expand(found, 1, [{"name": "plain-14"}])
    assert [each.told for each in deeper] == [each.told for each in found]


def test_networks_trained_on_different_images_are_not_asked_together(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "check_dataset", lambda recipe: None)
    data = lambda count: {
        "dataset": "digits",
        "class_names": "",
        "splits": {"all": {"examples": count}},
    }
    first = begun(tmp_path / "a", data=data(1_000))
    same = begun(tmp_path / "b", PLAIN.replace(seed=1), data=data(1_000))
    other = begun(tmp_path / "c", PLAIN.replace(seed=2), data=data(900))
    assert len(networks.collect([first, same])) == 2
    with pytest.raises(InputError, match=r"a and .*c: trained on different data \(all has 900 ex"):
        networks.collect([first, same, other])
    assert len(networks.collect([first, same, other], data_dir="elsewhere")) == 3


def test_untrained_network_beside_a_trained_one_says_so(tmp_path):
    found = networks.collect([begun(tmp_path / "run")], [PLAIN])
    assert [network.label for network in found] == ["plain-8", "plain-8, untrained"]


def test_evaluations_tell_runs_apart_whose_rate_they_lower(tmp_path):
    fields = {"schedule.name": "plateau", "schedule.boundaries": (), "evaluate_every": 10}
    split = {"dataset.train": "train[:90%]", "dataset.validation": "train[90%:]"}
    plateau = PLAIN.replace(**fields, **split)
    recipes = [plateau, plateau.replace(evaluate_every=20, seed=1)]
    workdirs = [begun(tmp_path / str(recipe.seed), recipe) for recipe in recipes]
    labels = [network.label for network in networks.collect(workdirs)]
    assert labels == ["plain-8, evaluate_every=10", "plain-8, evaluate_every=20"]


@pytest.mark.parametrize(
    ("study", "field", "value"),
    [
        (growth, "label_smoothing", 0.1),
        (growth, "freeze", "stem"),
        (sharpness, "freeze", "stem"),
        (sharpness, "optimizer.layer_decay", 0.8),
    ],
)
def test_training_that_a_study_does_not_allow_for_is_refused(study, field, value, tmp_path):
    workdir = begun(tmp_path / "run", PLAIN.replace(**{field: value}), steps=(300,))
    with pytest.raises(InputError, match=f"plain-8.*{field}={value}.*does not allow for it; give"):
        study.measure(networks.collect([workdir]), lambda _: iter)


def test_runs_that_diverged_or_are_not_finished_are_no_seeds_of_a_trained_network(
    tmp_path, monkeypatch
):
    workdirs = [
        begun(tmp_path / str(seed), PLAIN.replace(seed=seed), steps=steps, status=status)
        for seed, (status, steps) in enumerate(
            [("completed", (40,)), ("completed", (40,)), ("diverged", ()), (None, (40,))]
        )
    ]
    found = networks.collect(workdirs)
    with pytest.raises(InputError, match="it diverged before its first checkpoint; name the other"):
        found[2].last()
    apart = ["plain-8", "plain-8", "plain-8, diverged", "plain-8, not finished"]
    assert [network.label for network in found] == apart
    untrained = networks.collect(workdirs, untrained=True)
    assert [network.label for network in untrained] == ["plain-8"] * 4

    monkeypatch.setattr(networks.Network, "images", lambda *_: (IMAGES, LABELS))
    monkeypatch.setattr(networks.Network, "at", lambda *_: None)
    signals = SimpleNamespace(weight_gradient=(1.0, 1.0), layers_between=2)
    monkeypatch.setattr(growth, "signals", lambda *_: signals)
    table = growth.measure(found, lambda _: iter)
    assert table["network"].tolist() == ["plain-8"] * 4
    assert table["status"].tolist() == ["", "", "diverged", "not finished"]
    assert table["train_error"].isna().tolist() == [False, False, True, True]


TINY = PLAIN.replace(
    **{"model.name": "plain-5", "model.block": "one_layer", "model.width": 4},
    **{"model.bn_group_size": 16, "batch_size": 16, "num_steps": 4},
    **{"schedule.warmup": "none", "schedule.warmup_steps": 0},
)


def test_rate_that_evaluations_lower_is_refused_where_there_are_none():
    recipe = TINY.replace(
        **{"schedule.name": "plateau", "schedule.boundaries": ()},
        **{"dataset.train": "train[:90%]", "dataset.validation": "train[90%:]"},
    )
    network = networks.Network(recipe, None, "plain-8")
    with pytest.raises(InputError, match=r"name='plateau': plain-8.*schedule\.name=steps"):
        networks.train_on(network, {}, 1, 1)


def test_training_on_keeps_the_given_weights_and_needs_no_other_runs(tmp_path):
    given = networks.Network(TINY, None, "plain-8").initial()
    before = jax.tree.map(np.array, given)
    recipe = TINY.replace(init_from=str(tmp_path / "deleted"))
    trained, _ = networks.train_on(networks.Network(recipe, None, "plain-8"), given, 2, 1)
    jax.tree.map(np.testing.assert_array_equal, given, before)
    kernels = (tree["params"]["stem"]["kernel"] for tree in (trained, before))
    assert not np.array_equal(*kernels)


def test_folder_of_runs_stands_for_those_that_are_finished(tmp_path: Path):
    for seed in range(3):
        folder = tmp_path / f"plain-8-seed{seed}"
        folder.mkdir()
        recipe = Recipe.from_config(digits.get_config(f"plain-8,seed={seed}"))
        write_config(folder, recipe.to_dict(), devices="cpu")
        if seed < 2:
            (folder / "summary.json").write_text('{"status": "completed", "train_error": 0}')
    found = networks.collect([str(tmp_path)])
    assert [(each.label, each.recipe.seed) for each in found] == [("plain-8", 0), ("plain-8", 1)]
    assert [each.path for each in networks.collect([str(found[0].path)])] == [found[0].path]
    with pytest.raises(InputError, match="no run in this folder"):
        networks.collect([str(tmp_path / "plain-8-seed0" / "nothing")])


def test_trained_networks_tell_how_their_training_differs(tmp_path):
    slow = {"schedule.learning_rate": 0.01}
    recipes = [
        *(PLAIN.replace(seed=seed) for seed in range(6)),
        *(PLAIN.replace(seed=seed, **slow) for seed in range(5)),
        *(PLAIN.replace(seed=seed, **slow, **{"model.name": "resnet-8"}) for seed in range(5)),
    ]
    workdirs = [begun(tmp_path / str(place), recipe) for place, recipe in enumerate(recipes)]
    labels = list(dict.fromkeys(network.label for network in networks.collect(workdirs)))
    assert labels == ["plain-8, learning_rate=0.1", "plain-8", "resnet-8"]
    two = networks.collect([*workdirs[:5], *workdirs[-5:]])
    assert {network.label for network in two} == {
        "plain-8, learning_rate=0.1",
        "resnet-8, learning_rate=0.01",
    }
    untrained = networks.collect(workdirs[:1] + workdirs[-1:], untrained=True)
    assert {network.label for network in untrained} == {"plain-8", "resnet-8"}


def test_growth_takes_runs_of_one_length(tmp_path):
    workdirs = [
        begun(
            tmp_path / str(steps), PLAIN.replace(num_steps=steps), steps=(40,), status="completed"
        )
        for steps in (300, 600)
    ]
    with pytest.raises(InputError, match="one data set, number of steps and batch size"):
        growth.measure(networks.collect(workdirs), lambda _: iter)
