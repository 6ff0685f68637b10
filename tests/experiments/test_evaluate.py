"""Views, true averages and the confusion matrix, by the command, on a run of real photographs."""

import csv
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import cifar10
from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.runs import Recipe, arguments, load_recipe, write_config
from resnet_jax.training import inference
from resnet_jax.training.run import train

SIZE = 16


def take_pictures(folder: Path) -> Path:
    """Photographs of three colours, of many shapes; the test's first is named after its shape."""
    noise = np.random.default_rng(0)
    for split, shapes in (
        ("train", [(20, 20), (30, 20), (20, 33), (16, 40), (50, 24), (24, 24), (17, 31)]),
        ("test", [(40, 20), (20, 31), (25, 25), (64, 40)]),
    ):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for height, width in shapes:
                pixels = noise.integers(0, 150, (height, width, 3), np.uint8)
                pixels[..., channel] += 60
                file = folder / split / name / f"{height}x{width}.png"
                Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    fields = (
        "resnet-8,batch_size=8,num_steps=8,log_every=4,evaluate_every=8,checkpoint_every=8,"
        "num_devices=1,model.width=4,model.bn_group_size=4,dataset.name=image_folder,"
        f"dataset.image_size={SIZE},dataset.mean=imagenet,dataset.std=imagenet"
    )
    config = arguments.update(cifar10.recipe("resnet-8"), arguments.split(fields, "")[1])
    config.dataset.data_dir = str(take_pictures(folder / "pictures"))
    assert train(Recipe.from_config(config), folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def figures(run, run_command) -> dict:
    """What the command says of the test split, and the confusion matrix beside the run."""
    done = run_command("evaluate", f"--workdir={run}", f"--confusion={run.parent / 'c'}")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_figures_are_those_of_the_runs_own_last_row(run, figures):
    summary = json.loads((run / "summary.json").read_text())
    assert figures["error"] == pytest.approx(summary["test_error"])
    assert figures["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)


def test_slices_are_those_of_the_data_set(run, figures):
    """Halves of the test split, and a part of two splits, in TFDS's syntax."""
    halves = [inference.evaluate(run, part) for part in ("test[:50%]", "test[50%:]")]
    metrics = [half.metrics() for half in halves]
    assert [(each["split"], each["examples"]) for each in metrics] == [
        ("test[:50%]", 6),
        ("test[50%:]", 6),
    ]
    assert np.mean([each["loss"] for each in metrics]) == pytest.approx(figures["loss"], rel=1e-5)
    viewed = inference.evaluate(run, "train[:5]+test", view="centre").metrics()
    assert (viewed["split"], viewed["examples"]) == ("train[:5]+test", 17)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tests", "split='tests': allowed are train, test; nearest: test"),
        ("", "split='': allowed are train, test"),
        ("val[:5]", "split 'val[:5]': Unknown split 'val'.*; there is train (21), test (12)"),
        ("test[:5", "split 'test[:5': "),
        ("test[:0]", "split 'test[:0]' is empty"),
    ],
)
def test_slice_of_nothing_is_one_line(run, split, message):
    with pytest.raises(InputError, match=re.escape(message).replace(r"\.\*", ".*")) as caught:
        inference.evaluate(run, split)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["centre", "10-crop", "multi-scale", "single-320"])
def test_view_shows_every_picture_of_the_split_once(view, run, figures, run_command):
    done = run_command("evaluate", f"--workdir={run}", f"--test_crops={view}")
    assert done.code == 0, done.stderr
    viewed = json.loads(done.stdout)
    assert (viewed["test_crops"], viewed["examples"]) == (view, 12)
    assert 0 <= viewed["error"] <= 1
    # The very net, on the very pictures: a loss far from chance's is the net's.
    assert viewed["loss"] == pytest.approx(figures["loss"], rel=0.5)


@pytest.mark.weekly
def test_views_do_not_depend_on_the_batch(run):
    whole = inference.evaluate(run, "test", view="multi-scale")
    net = inference.load(run)
    from resnet_jax.data import datasets
    from resnet_jax.data.image_ops import TEST_CROPS, cut

    pictures = datasets.open_images("image_folder", "test", data_dir=net.recipe.dataset.data_dir)
    decoded = [pictures[i].decode() for i in range(len(pictures))]
    crops = [cut(picture, TEST_CROPS["multi-scale"], SIZE) for picture in decoded]
    np.testing.assert_allclose(whole.logits, net.predictor(count=1)(crops), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(whole.labels, [pictures[i].label for i in range(len(pictures))])


@pytest.mark.slow
@pytest.mark.parametrize("view", [None, "centre"])
def test_recomputed_statistics_are_the_mean_over_whole_groups(view, run, monkeypatch):
    """21 training pictures are five groups of 4; the net then says something else."""
    seen = []
    plain = inference.recalibrate

    def spy(model, variables, batches):
        batches = list(batches)
        seen.append((variables, batches, plain(model, variables, batches)))
        return seen[-1][-1]

    monkeypatch.setattr(inference, "recalibrate", spy)
    answers = inference.evaluate(run, "test", view=view, recalibrate_batch_norm=True)
    assert answers.metrics()["groups"] == 5
    ((variables, batches, found),) = seen
    images = np.concatenate([np.asarray(batch) for batch in batches])
    assert len(images) == 20
    model = inference.load(run).model
    alone = [
        with_statistics_of(model, variables, images[i : i + 4])["batch_stats"]
        for i in range(0, 20, 4)
    ]
    jax.tree.map(
        lambda mean, *parts: np.testing.assert_allclose(mean, np.mean(parts, 0), atol=1e-4),
        found["batch_stats"],
        *alone,
    )
    running = inference.evaluate(run, "test", view=view)
    assert not np.allclose(answers.logits, running.logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": "stem+stage1"}, "kept the batch norms of freeze='stem+stage1' at given"),
        ({"freeze": "batch_norm"}, "kept the batch norms of freeze='batch_norm' at given"),
        ({"model.norm": "none", "model.bn_group_size": None}, "norm='none' has no batch norm"),
    ],
)
def test_statistics_that_are_no_running_averages_are_not_recomputed(fields, message, run, tmp_path):
    write_config(tmp_path, load_recipe(run).replace(**fields).to_dict(), devices="none")
    with pytest.raises(InputError, match=f"^recalibrate_batch_norm=True: .*{re.escape(message)}"):
        inference.evaluate(tmp_path, "test", recalibrate_batch_norm=True)


def test_confusion_matrix_agrees_with_the_error(run, figures):
    with (run.parent / "c" / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == ["blue", "green", "red"]
    counts = np.array([row[1:] for row in rows], int)
    assert counts.sum(1).tolist() == [4, 4, 4]
    assert 1 - np.trace(counts) / 12 == pytest.approx(figures["error"])
    assert Image.open(run.parent / "c" / "confusion.png").size[0] > 400


def mistakes(flags: str, message: str):
    return pytest.param(flags, message, id=flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        mistakes("--test_crops=11-crop", "nearest: 10-crop"),
        mistakes("--test_crops=centre --average=mean", "average='mean': allowed are"),
        mistakes("--average=logits", "goes with --test_crops"),
        mistakes("--test_crops=centre --split=val", "split='val': allowed are train, test"),
        mistakes("--test_crops=centre --step=3", "step=3: no such checkpoint"),
    ],
)
def test_mistake_is_one_line(flags, message, run, run_command):
    done = run_command("evaluate", f"--workdir={run}", *flags.split())
    assert (done.code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr


def test_broken_picture_is_named(run, run_command, tmp_path):
    shutil.copytree(run.parent / "pictures", tmp_path / "pictures")
    file = tmp_path / "pictures/test/green/25x25.png"
    file.write_bytes(file.read_bytes()[:200])
    done = run_command(
        "evaluate", f"--workdir={run}", "--test_crops=centre", f"--data_dir={tmp_path / 'pictures'}"
    )
    assert (done.code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "test/green/25x25.png: unreadable image" in done.stderr


@pytest.mark.parametrize("view", [[], ["--test_crops=centre"]])
def test_data_set_of_other_classes_is_refused(view, run, run_command, tmp_path):
    """As many folders, so that nothing but the names shows it."""
    shutil.copytree(run.parent / "pictures", tmp_path / "pictures")
    for split in ("train", "test"):
        (tmp_path / "pictures" / split / "green").rename(tmp_path / "pictures" / split / "cyan")
    flags = [f"--workdir={run}", f"--data_dir={tmp_path / 'pictures'}", *view]
    done = run_command("evaluate", *flags)
    assert (done.code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "class 1 is 'cyan'; the network was trained on 'green'" in done.stderr


def test_other_training_images_are_told_of_where_statistics_are_theirs(run, run_command, tmp_path):
    shutil.copytree(run.parent / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "train" / "red" / "20x20.png").unlink()
    flags = [f"--workdir={run}", f"--data_dir={tmp_path / 'pictures'}"]
    assert "note: other data" not in run_command("evaluate", *flags).stderr
    assert "note: other data" in run_command("evaluate", *flags, "--recalibrate_batch_norm").stderr


def test_data_sets_of_one_size_have_one_view(tmp_path):
    """CIFAR's images are what the net was shown; nothing can be cut from them."""
    from configs import digits
    from resnet_jax import runs

    config = digits.get_config("resnet-8")
    runs.write_config(tmp_path, config.to_dict(), devices="none")
    message = r"test_crops='10-crop': digits's images are all 8×8: there is one crop"
    with pytest.raises(InputError, match=message):
        inference.evaluate(tmp_path, "test", view="10-crop")
