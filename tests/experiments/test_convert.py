"""Weights become a folder that the other commands take, go out again, and lie about nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import cifar10, digits
from resnet_jax import runs
from resnet_jax.data import device_dataset
from resnet_jax.errors import InputError
from resnet_jax.interop import export, programs, pytorch_names, weight_files
from resnet_jax.models import zoo
from resnet_jax.runs import Recipe, arguments, load_recipe
from resnet_jax.training import inference, trainer
from resnet_jax.training.checkpoints import Checkpoints, load_weights
from resnet_jax.training.run import train

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
DIGITS = "digits,train=train[:200],test=test[:100],mean=pixel,std=none"


def write(path: Path, name: str = "resnet-8", colours: int = 1, num_classes: int = 10, **axes):
    """A file with the random weights of a net."""
    model = zoo.create(name, num_classes, **axes)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, colours), np.float32))
    layout = "torchvision" if model.architecture.stem == "imagenet" else "akamaster"
    weight_files.write(path, pytorch_names.to_torch(variables, model.architecture, layout))
    return path


def fill(workdir: Path, source: Path, dataset: str | None) -> str:
    return export.fill(workdir, source, dataset, cifar10.recipe)


def score(workdir: Path) -> dict[str, float]:
    """What `experiments.evaluate` prints of the test split."""
    run = trainer.build(load_recipe(workdir))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = checkpoints.restore(run.state_template())
    return run.make_evaluate()(state.variables, run.splits["test"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a narrow ResNet-8 on digits, whose option A pads at the end."""
    config = digits.get_config(
        "resnet-8,batch_size=32,num_steps=2,evaluate_every=2,model.width=4,model.bn_group_size=32,"
        "dataset.train=train[:200],dataset.test=test[:100]"
    )
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert train(Recipe.from_config(config), workdir) == 0
    return workdir


def test_conversion_under_jaxs_float64_is_refused_and_leaves_no_folder(tmp_path):
    file = write(tmp_path / "net.safetensors")
    with jax.enable_x64(True), pytest.raises(InputError, match="JAX_ENABLE_X64=1: weights and ch"):
        fill(tmp_path / "back", file, DIGITS)
    assert not (tmp_path / "back").exists()


@pytest.mark.slow
def test_exported_run_scores_the_same_when_it_comes_back(trained, tmp_path):
    file = tmp_path / "net.safetensors"
    assert "at step 2," in export.export(trained, file, None)
    assert int(weight_files.read(file)["bn1.num_batches_tracked"]) == 2
    told = fill(tmp_path / "back", file, DIGITS)
    assert "resnet-8" in told
    assert "option_a_padding=both" in told
    expected, again = score(trained), score(tmp_path / "back")
    assert again["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert again["error"] == expected["error"]


@pytest.mark.slow
def test_both_commands_and_evaluate_work_on_the_command_line(run_command, tmp_path):
    source, workdir = write(tmp_path / "net.safetensors"), tmp_path / "run"
    done = run_command(
        "convert", f"--source={source}", f"--workdir={workdir}", f"--dataset={DIGITS}"
    )
    assert done.code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "resnet-8" in line
    assert "10 classes" in line
    done = run_command("evaluate", f"--workdir={workdir}")
    assert done.code == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["model"], figures["step"], figures["examples"]) == ("resnet-8", 0, 100)
    output = tmp_path / "back.safetensors"
    done = run_command("convert", f"--workdir={workdir}", f"--output={output}")
    assert done.code == 0, done.stderr
    assert not done.stderr.strip()
    before, after = weight_files.read(source), weight_files.read(output)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def folder_of_pictures(folder: Path) -> str:
    """As `--dataset` names it: three classes of one empty file a split."""
    for split in ("train", "test"):
        for name in ("cat", "dog", "eel"):
            (folder / split / name).mkdir(parents=True)
            (folder / split / name / "0.png").touch()
    return f"image_folder,data_dir={folder},image_size=64"


@pytest.mark.slow
def test_imagenet_net_goes_in_and_out_for_a_folder_of_pictures(tmp_path):
    dataset = folder_of_pictures(tmp_path / "pictures")
    source = write(tmp_path / "net.safetensors", "resnet-18", colours=3, num_classes=3)
    assert "resnet-18, 3 classes" in fill(tmp_path / "run", source, dataset)
    export.export(tmp_path / "run", tmp_path / "back.safetensors", None)
    before, after = weight_files.read(source), weight_files.read(tmp_path / "back.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_folder_holds_a_config_and_a_checkpoint_and_no_summary(tmp_path):
    source = write(tmp_path / "net.safetensors")
    fill(tmp_path / "run", source, DIGITS)
    run = runs.read_run(tmp_path / "run")
    assert (run.status, run.problems, run.rows) == ("partial", [], [])
    assert run.config["converted_from"] == "net.safetensors"
    assert run.config["model"]["option_a_padding"] == "both"
    saved = load_weights(tmp_path / "run" / "checkpoints")
    assert saved.step == 0


def test_images_are_normalised_as_published_weights_want_them(tmp_path):
    source = write(tmp_path / "net.safetensors", colours=3)
    fill(tmp_path / "run", source, None)
    dataset = runs.read_run(tmp_path / "run").config["dataset"]
    assert (dataset["name"], dataset["mean"], dataset["std"]) == ("cifar10", "imagenet", "imagenet")


def test_data_set_of_as_many_classes_is_the_default(tmp_path):
    fill(tmp_path / "run", write(tmp_path / "a.safetensors", colours=3, num_classes=100), None)
    assert runs.read_run(tmp_path / "run").config["dataset"]["name"] == "cifar100"
    with pytest.raises(InputError, match=r"the weights have 7 classes; name the data set"):
        fill(tmp_path / "7", write(tmp_path / "b.safetensors", num_classes=7), None)
    assert not (tmp_path / "7").exists()


def test_order_in_which_classes_are_taken_and_the_normalisation_are_told(tmp_path):
    told = fill(tmp_path / "run", write(tmp_path / "net.safetensors"), DIGITS)
    assert "taken to be, in this order, 0, 1, 2, … 9 of digits" in told
    assert "normalised with mean=pixel, std=none; to score it" in told
    told = export.export(tmp_path / "run", tmp_path / "back.safetensors", None)
    assert told.endswith("for images normalised with mean=pixel, std=none")


def test_classes_and_normalisation_stay_those_of_the_conversion(tmp_path):
    dataset = folder_of_pictures(tmp_path / "pictures")
    noise = np.random.default_rng(0)
    for file in (tmp_path / "pictures").glob("*/*/0.png"):
        Image.fromarray(noise.integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    source = write(tmp_path / "net.safetensors", colours=3, num_classes=3, width=4)
    fill(tmp_path / "run", source, f"{dataset},mean=pixel,std=none")
    before = inference.load(tmp_path / "run")
    assert np.ptp(before.normalization.mean) > 0  # of these images, pixel by pixel
    for split in ("train", "test"):
        (tmp_path / "pictures" / split / "cat").rename(tmp_path / "pictures" / split / "zebra")
    with pytest.raises(InputError, match=r"class 0 is 'dog'; the network was trained on 'cat'"):
        inference.evaluate(tmp_path / "run", "test")
    shutil.rmtree(tmp_path / "pictures")
    after = inference.load(tmp_path / "run")
    np.testing.assert_array_equal(after.normalization.mean, before.normalization.mean)
    assert after.class_names == before.class_names == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("name", "view"), [("resnet-18", " --test_crops=centre"), ("resnet-8", "")]
)
def test_imagenet_net_is_to_be_scored_on_centres_as_published_errors_are(name, view, tmp_path):
    dataset = folder_of_pictures(tmp_path / "pictures")
    source = write(tmp_path / "net.safetensors", name, colours=3, num_classes=3, width=4)
    told = fill(tmp_path / "run", source, dataset)
    assert told.endswith(f"experiments.evaluate --workdir={tmp_path / 'run'}{view}")


def test_weights_with_other_classes_than_the_data_are_said_to_be_for_fine_tuning(tmp_path):
    told = fill(tmp_path / "run", write(tmp_path / "net.safetensors", num_classes=7), DIGITS)
    assert "digits has 10 classes: to fine-tune it" in told
    assert f"init_from={tmp_path / 'run'},data_dir=IMAGES --workdir" in told
    assert "to score it" not in told


def test_training_images_that_fill_the_memory_do_not_stop_an_import(tmp_path, monkeypatch):
    source = write(tmp_path / "net.safetensors", width=2)
    memory = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 50_000}  # of 1,000 and 100 images of 64 bytes
    true = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: memory.get(name) or true(name))
    splits = "digits,train=train[:1000],test=test[:100]"
    with pytest.raises(InputError, match="1,100 images of 8×8"):
        fill(tmp_path / "computed", source, f"{splits},mean=pixel,std=none")
    told = fill(tmp_path / "run", source, f"{splits},mean=none,std=none")
    assert "to score it" in told


def test_training_does_not_go_on_with_converted_weights(tmp_path):
    fill(tmp_path / "run", write(tmp_path / "net.safetensors", colours=3), None)
    with pytest.raises(InputError, match=r"converted_from: 'net.safetensors', now None"):
        train(
            Recipe.from_config(
                arguments.update(
                    cifar10.recipe("resnet-8"),
                    {
                        "dataset.mean": "imagenet",
                        "dataset.std": "imagenet",
                        "model.option_a_padding": "both",
                    },
                )
            ),
            tmp_path / "run",
        )


LOADERS = {
    ".stablehlo": """
import jax.export
program = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes())).call
""",
    ".onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
program = lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", LOADERS)
def test_exported_program_gives_the_same_logits_without_this_library(suffix, trained, tmp_path):
    if suffix == ".onnx":
        for needed in ("jax2onnx", "onnxruntime"):
            pytest.importorskip(needed, reason=f"needs {needed}")
    told = export.export(trained, tmp_path / f"net{suffix}", None)
    assert "resnet-8 at step 2, from uint8 images [batch, 8, 8, 1] to logits [batch, 10]" in told
    images = np.random.default_rng(0).integers(256, size=(7, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        + LOADERS[suffix]
        + "images = np.load('images.npy')\n"
        "np.save('logits.npy', np.concatenate([program(images[:5]), program(images[5:])]))\n"
        "assert not any(name.startswith('resnet_jax') for name in sys.modules)"
    )
    line = [sys.executable, "-c", code, f"net{suffix}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = inference.load(trained)
    pixels = device_dataset.normalize(images, loaded.normalization)
    expected = loaded.model.apply(loaded.variables, pixels, train=False)
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_missing_jax2onnx_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(InputError, match=r"\.onnx files need jax2onnx, which is not installed"):
        export.export(trained, tmp_path / "net.onnx", None)
    assert not (tmp_path / "net.onnx").exists()


def test_imagenet_stem_is_refused_in_onnx_in_one_line():
    loaded = inference.LoadedModel(None, 0, zoo.create("resnet-18"), {}, None, (64, 64, 3), ())
    with pytest.raises(InputError, match=r"does not carry the padded max-pool"):
        programs.serialize(loaded, ".onnx")


def test_step_that_was_not_saved_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"step=9: no such checkpoint; .* has \[2\]"):
        export.export(trained, tmp_path / "net.safetensors", 9)


def test_folder_of_a_run_is_not_overwritten(trained, tmp_path):
    with pytest.raises(InputError, match="holds a run already"):
        fill(trained, write(tmp_path / "net.safetensors"), DIGITS)


def test_net_without_counterpart_is_not_exported(tmp_path):
    runs.write_config(tmp_path, digits.get_config("plain-8").to_dict(), devices="none")
    with pytest.raises(InputError, match="shortcut='none': akamaster's networks have 'identity'"):
        export.export(tmp_path, tmp_path / "net.safetensors", None)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("cifar11", "nearest: cifar10"),
        ("cifar100", "dataset='cifar100': has 100 classes, the weights have 10"),
        ("cifar10,means=pixel", "means"),
        ("cifar10,mean=median", "dataset.mean='median'"),
        ("image_folder,image_size=32", "data_dir=None"),
        ("digits", r"dataset.mean='imagenet': for 3 colours; images have 1 channel\(s\)"),
        ("cifar10", r"dataset='cifar10': images have 3 channel\(s\); the weights take 1"),
    ],
)
def test_wrong_data_set_is_told_before_anything_is_written(dataset, message, tmp_path):
    source = write(tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=message):
        fill(tmp_path / "run", source, dataset)
    assert not (tmp_path / "run").exists()


def test_tensor_that_does_not_fit_is_named_with_its_file(tmp_path):
    source = write(tmp_path / "net.safetensors")
    tensors = weight_files.read(source)
    del tensors["layer2.0.bn1.bias"]
    weight_files.write(source, tensors)
    with pytest.raises(InputError, match=r"net.safetensors: .*missing: layer2.0.bn1.bias"):
        fill(tmp_path / "run", source, DIGITS)
    assert not (tmp_path / "run").exists()


@pytest.mark.weekly
@pytest.mark.torch
def test_published_resnet_20_makes_its_published_error_on_cifar10(run_command, tmp_path):
    pytest.importorskip("torch")
    source = SHARED / "data" / "pretrained" / "resnet20-12fca82f.th"
    assert _cifar10_error(run_command, tmp_path, source) == pytest.approx(0.0827, abs=2e-4)


@pytest.mark.weekly
def test_resnet_20_trained_here_makes_the_error_of_its_run_on_cifar10(run_command, tmp_path):
    results = REPOSITORY / "results"
    summary = json.loads((results / "cifar10-64000-steps/resnet-20-seed0/summary.json").read_text())
    source = results / "weights" / "resnet-20-seed0.safetensors"
    assert source.exists()
    error = _cifar10_error(run_command, tmp_path, source, "--dataset=cifar10,mean=pixel,std=none")
    assert error == pytest.approx(summary["test_error"], abs=2e-4)


def _cifar10_error(run_command, folder: Path, source: Path, *flags: str) -> float:
    """Error on the real test images of a file of weights, by three commands."""
    unpack = SHARED / "tools" / "unpack_cifar10.py"
    for needed in (source, unpack, SHARED / "data" / "cifar10"):
        if not needed.exists():
            pytest.skip(f"needs {needed}")
    subprocess.run([sys.executable, unpack, "--bin", str(folder)], check=True)
    data_dir, workdir = f"--data_dir={folder / 'tfds'}", f"--workdir={folder / 'run'}"
    dataset = [f"{flag},data_dir={folder / 'tfds'}" for flag in flags]
    for done in (
        run_command("prepare_data", "--dataset=cifar10", f"--source={folder}", data_dir),
        run_command("convert", f"--source={source}", workdir, *dataset),
        run_command("evaluate", workdir, data_dir),
    ):
        assert done.code == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["examples"] == 10_000
    return figures["error"]
