"""A run that streamed its pictures is evaluated, recomputed and asked like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import imagenet
from resnet_jax.runs import Recipe
from resnet_jax.training import inference
from resnet_jax.training.run import train

SHAPES = [(40, 30), (30, 44), (36, 36), (28, 60)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_command) -> Path:
    """A few steps on a TFDS set made of JPEG files of many shapes."""
    folder = tmp_path_factory.mktemp("streamed")
    noise = np.random.default_rng(0)
    for split, each in (("train", 3), ("test", 1)):
        for channel, name in enumerate(("red", "green")):
            (folder / "tree" / split / name).mkdir(parents=True)
            for number in range(each):
                for height, width in SHAPES:
                    pixels = noise.integers(0, 150, (height, width, 3), np.uint8)
                    pixels[..., channel] += 80
                    file = folder / "tree" / split / name / f"{height}x{width}-{number}.jpg"
                    Image.fromarray(pixels).save(file, quality=95)
    flags = ("--dataset=shots", f"--source={folder / 'tree'}", f"--data_dir={folder / 'data'}")
    done = run_command("prepare_data", *flags)
    assert done.code == 0, done.stderr
    config = imagenet.get_config(
        "resnet-8,batch_size=8,num_steps=6,log_every=3,evaluate_every=6,checkpoint_every=6,"
        "model.width=4,model.bn_group_size=4,num_devices=1,dataset.name=shots,dataset.test=test,"
        "dataset.image_size=14,streaming.shorter_side=16,streaming.num_workers=1"
    )
    config.streaming.scales = (16, 24)
    config.dataset.data_dir = str(folder / "data")
    assert train(Recipe.from_config(config), folder / "run") == 0
    return folder / "run"


@pytest.mark.slow
def test_figures_are_those_of_the_runs_own_last_row(run, run_command):
    done = run_command("evaluate", f"--workdir={run}")
    assert done.code == 0, done.stderr
    figures = json.loads(done.stdout)
    summary = json.loads((run / "summary.json").read_text())
    assert figures["examples"] == 8
    assert figures["error"] == pytest.approx(summary["test_error"])
    assert figures["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)


def test_centre_view_is_what_the_run_is_tested_on(run):
    """But for the rounding of resizing: 16 pixels are 256 in proportion to the 224 of 14."""
    streamed = inference.evaluate(run, "test")
    viewed = inference.evaluate(run, "test", view="centre")
    np.testing.assert_array_equal(streamed.labels, viewed.labels)
    assert viewed.class_names == streamed.class_names == ("green", "red")
    likely = lambda logits: logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(likely(viewed.logits), likely(streamed.logits), atol=0.05)


@pytest.mark.weekly
def test_recomputed_statistics_are_of_the_whole_stream(run):
    streamed = inference.evaluate(run, "test", recalibrate_batch_norm=True)
    viewed = inference.evaluate(run, "test", view="multi-scale", recalibrate_batch_norm=True)
    assert streamed.metrics()["groups"] == viewed.metrics()["groups"] == 6


def test_files_are_fitted_as_in_the_runs_tests(run, run_command):
    net = inference.load(run)
    assert net.as_trained(np.zeros((40, 80, 3), np.uint8)).shape == (14, 14, 3)
    file = run.parent / "tree" / "test" / "red" / "40x30-0.jpg"
    done = run_command("predict", f"--workdir={run}", str(file))
    assert done.code == 0, done.stderr
    assert "red" in done.stdout
    assert "green" in done.stdout
