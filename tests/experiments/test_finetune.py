"""A network starts from another run's weights with new classes, stopped or not, frozen or not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from configs import cifar10, finetune
from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments
from resnet_jax.runtime.multihost import StopSignals
from resnet_jax.studies import networks
from resnet_jax.training.checkpoints import Checkpoints, load_weights
from resnet_jax.training.run import train

SHORT = "batch_size=8,num_steps=6,log_every=2,evaluate_every=6,checkpoint_every=3,num_devices=1"


def draw(folder: Path, *classes: str) -> Path:
    """Eight noisy pictures a class for training and four for the test; each has its brightness."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = noise.integers(80 * number, 80 * number + 80, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A run that tells two classes apart."""
    folder = tmp_path_factory.mktemp("pretrained")
    fields = arguments.split(f"resnet-8,{SHORT},model.width=4,model.bn_group_size=8", "")[1]
    config = arguments.update(cifar10.recipe("resnet-8"), fields)
    config.dataset.update(name="image_folder", image_size=8, mean="imagenet", std="imagenet")
    config.dataset.data_dir = str(draw(folder / "pictures", "day", "night"))
    assert train(Recipe.from_config(config), folder / "run") == 0
    return folder / "run"


@pytest.fixture
def pictures(tmp_path) -> Path:
    return draw(tmp_path / "pictures", "ash", "beech", "cedar")


def test_network_that_did_not_end_its_training_is_told(pretrained, pictures, tmp_path, capsys):
    start = shutil.copytree(pretrained, tmp_path / "start")
    assert train(Recipe.from_config(tuned(start, pictures)), tmp_path / "whole") == 0
    assert "init_from" not in capsys.readouterr().out
    (start / "summary.json").unlink()
    assert train(Recipe.from_config(tuned(start, pictures)), tmp_path / "part") == 0
    told = f"init_from={str(start)!r}: that run is not finished; this one begins with what"
    assert told in capsys.readouterr().out


def tuned(start: Path, pictures: Path, extra: str = ""):
    fields = f"init_from={start},data_dir={pictures},model.bn_group_size=8,{SHORT}{extra}"
    return finetune.get_config(fields)


def weights(workdir: Path, step: int | None = None):
    return flatten_dict(load_weights(workdir / "checkpoints", step).variables)


def is_classifier(path) -> bool:
    return path[1] == "classifier"


@pytest.mark.slow
def test_first_weights_are_the_other_runs_and_the_classifier_is_new(pretrained, pictures, tmp_path):
    config = tuned(pretrained, pictures, ",max_to_keep=9")
    assert config.model.width == 4
    assert (config.dataset.mean, config.dataset.image_size) == ("imagenet", 8)
    assert train(Recipe.from_config(config), tmp_path / "run") == 0
    theirs, first, last = (
        weights(pretrained), weights(tmp_path / "run", 0), weights(tmp_path / "run")
    )  # fmt: skip
    for path, value in first.items():
        if is_classifier(path):
            assert value.shape[-1] == 3
        else:
            np.testing.assert_array_equal(value, theirs[path])
            assert not np.array_equal(last[path], value)
    run = runs.read_run(tmp_path / "run")
    assert run.info["class_names"] == ["ash", "beech", "cedar"]
    assert run.config["init_from"] == str(pretrained)
    assert run.info["init_from_id"] == runs.read_run(pretrained).info["run_id"]


@pytest.mark.slow
def test_first_weights_outlast_pruning_and_if_they_are_gone_are_refused_and_not_drawn_anew(
    pretrained, pictures, tmp_path
):
    config = tuned(pretrained, pictures, ",max_to_keep=1")
    assert train(Recipe.from_config(config), tmp_path / "run") == 0
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [0, 6]
    (network,) = networks.collect([str(tmp_path / "run")])
    first, theirs = flatten_dict(network.at(0)), weights(pretrained)
    assert all(np.array_equal(first[p], theirs[p]) for p in first if not is_classifier(p))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "0")
    (network,) = networks.collect([str(tmp_path / "run")])
    with pytest.raises(InputError, match=r"weights were those of .*pretrained.* no longer kept"):
        network.at(0)


@pytest.mark.slow
def test_stopped_run_ends_with_the_same_bits_even_if_the_other_is_gone(
    pretrained, pictures, tmp_path, monkeypatch
):
    start = tmp_path / "start"
    shutil.copytree(pretrained, start)
    config = tuned(start, pictures, ",freeze=stem+batch_norm")
    assert train(Recipe.from_config(config), tmp_path / "whole") == 0
    asked = iter([False, False, True])
    monkeypatch.setattr(StopSignals, "asked", lambda self: next(asked))
    assert train(Recipe.from_config(config), tmp_path / "stopped") == 75
    shutil.rmtree(start)
    monkeypatch.undo()
    with pytest.raises(
        InputError, match=r"to resume .*: init_from=FOLDER.* --config.init_from=.*t$"
    ):
        tuned(start, pictures)
    again = tuned(tmp_path / "stopped", pictures, ",freeze=stem+batch_norm")
    again.init_from = str(start)
    assert train(Recipe.from_config(again), tmp_path / "stopped") == 0
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(np.array_equal(whole[path], stopped[path]) for path in {*whole, *stopped})
    resumed = runs.read_run(tmp_path / "stopped").info["init_from_id"]
    assert resumed == runs.read_run(pretrained).info["run_id"]


def test_run_killed_while_it_saves_its_first_weights_can_be_rerun(
    pretrained, pictures, tmp_path, monkeypatch
):
    """A checkpoint without a config would be refused."""

    def killed(self, state):
        assert (tmp_path / "run" / "config.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    recipe = Recipe.from_config(tuned(pretrained, pictures))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    monkeypatch.undo()
    assert train(recipe, tmp_path / "run") == 0


@pytest.mark.parametrize("extra", ["", ",dataset.image_size=16,dataset.flip=false"])
def test_config_without_its_start_is_made_of_the_runs_own(extra, pretrained, pictures, tmp_path):
    config = tuned(pretrained, pictures, extra)
    runs.write_config(tmp_path / "run", Recipe.from_config(config).to_dict(), devices="")
    with pytest.raises(InputError, match="to resume a run that began from it: init_from=FOLDER"):
        tuned(tmp_path / "gone", pictures)
    again = tuned(tmp_path / "run", pictures, extra)
    again.init_from = str(pretrained)
    assert Recipe.from_config(again) == Recipe.from_config(config)


def test_frozen_net_learns_a_classifier_only(pretrained, pictures, tmp_path):
    config = tuned(pretrained, pictures, ",freeze=stem+stage1+stage2+stage3")
    assert train(Recipe.from_config(config), tmp_path / "run") == 0
    theirs, last = weights(pretrained), weights(tmp_path / "run")
    assert {p for p in last if not is_classifier(p) and not np.array_equal(last[p], theirs[p])} == (
        set()
    )


def spoilt(pretrained: Path, folder: Path, spoil) -> Path:
    shutil.copytree(pretrained, folder)
    spoil(folder)
    return folder


def test_start_without_checkpoints_is_one_line_and_leaves_no_folder(pretrained, pictures, tmp_path):
    start = spoilt(pretrained, tmp_path / "s", lambda f: shutil.rmtree(f / "checkpoints"))
    with pytest.raises(InputError, match=r"init_from='.*/s': no checkpoint in this folder"):
        train(Recipe.from_config(tuned(start, pictures)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_start_that_is_no_run_is_one_line(pretrained, pictures, tmp_path):
    with pytest.raises(InputError, match=r"init_from='.*/none': no run in this folder"):
        tuned(tmp_path / "none", pictures)
    config = tuned(pretrained, pictures)
    config.init_from = str(tmp_path / "none")
    with pytest.raises(InputError, match=r"^init_from='.*/none': no run in this folder"):
        train(Recipe.from_config(config), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (",model.width=8", r"init_from=.*another architecture \(width=4, here 8\)"),
        (",model.shortcut=none", r"another architecture \(shortcut='identity', here 'none'\)"),
        (",model.name=resnet-14", r"another architecture \(stage_sizes"),
        (",dataset.std=none", r"init_from=.*normalised otherwise: set dataset.std=.*, not none"),
        (",freeze=stem+stage9", "freeze='stage9': allowed are stem, stage1"),
        (",freeze=classifier", "freeze='classifier': allowed are"),
    ],
)
def test_net_that_does_not_fit_is_named_before_anything_is_made(
    fields, message, pretrained, pictures, tmp_path
):
    with pytest.raises(InputError, match=message):
        train(Recipe.from_config(tuned(pretrained, pictures, fields)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_colours_and_mirroring_are_those_of_the_other_run(tmp_path, pictures):
    config = cifar10.recipe("resnet-8")
    config.dataset.update(flip=False, mean="channel", std="channel")
    runs.write_config(tmp_path / "other", Recipe.from_config(config).to_dict(), devices="")
    found = Recipe.from_config(tuned(tmp_path / "other", pictures)).dataset
    assert (found.mean, found.std, found.flip) == ("channel", "channel", False)
    assert found.exif_orientation  # the images are one's own


def test_config_wants_a_start():
    with pytest.raises(InputError, match="name the folder of a trained run"):
        finetune.get_config("data_dir=pictures")
    with pytest.raises(InputError, match="'resnet-50': the network is that of the run"):
        finetune.get_config("resnet-50,init_from=x")
