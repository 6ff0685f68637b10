"""Files of pictures get their classes, whatever else is among them, as the run would see them."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import cifar10
from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.interop import export, pytorch_names, weight_files
from resnet_jax.models import zoo
from resnet_jax.reporting.predictions import draw_map
from resnet_jax.runs import Recipe, arguments
from resnet_jax.training import inference
from resnet_jax.training.multi_crop import MultiCropPredictor
from resnet_jax.training.run import train

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def paint(path: Path, colour: str, height: int = 24, width: int = 24) -> Path:
    noise = np.random.default_rng(len(path.name)).integers(-30, 30, (height, width, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that has learnt three colours, whose pictures are gone since."""
    folder = tmp_path_factory.mktemp("trained")
    for split, count in (("train", 12), ("test", 4)):
        for colour in COLOURS:
            for i in range(count):
                paint(folder / "pictures" / split / colour / f"{i}.png", colour)
    fields = (
        "resnet-8,batch_size=12,num_steps=40,log_every=20,evaluate_every=40,checkpoint_every=40,"
        "num_devices=1,model.width=4,model.bn_group_size=12,dataset.name=image_folder,"
        "dataset.image_size=16,dataset.mean=imagenet,dataset.std=imagenet"
    )
    config = arguments.update(cifar10.recipe("resnet-8"), arguments.split(fields, "")[1])
    config.dataset.data_dir = str(folder / "pictures")
    assert train(Recipe.from_config(config), folder / "run") == 0
    assert runs.read_run(folder / "run").summary["test_error"] == 0
    shutil.rmtree(folder / "pictures")
    return folder / "run"


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return [
        paint(tmp_path / "a.png", "green", 60, 40),
        paint(tmp_path / "b.jpg", "red", 31, 90),
        paint(tmp_path / "c.webp", "blue"),
    ]


def test_each_file_is_told_in_a_line_with_its_likely_classes(run, files, run_command):
    done = run_command("predict", f"--workdir={run}", *map(str, files), "--top=2")
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for file, colour, line in zip(files, ("green", "red", "blue"), lines, strict=True):
        assert line.startswith(f"{file}: {colour} ")
        assert line.count("%") == 2


def test_json_has_all_that_is_asked_for(run, files, run_command):
    done = run_command("predict", "--json", f"--workdir={run}", *map(str, files))
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["file"] for record in records] == list(map(str, files))
    for record, colour in zip(records, ("green", "red", "blue"), strict=True):
        shares = [entry["probability"] for entry in record["classes"]]
        assert record["classes"][0]["class"] == colour
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_broken_and_missing_files_get_a_line_each_and_the_others_are_done(
    run, files, run_command, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(files[1].read_bytes()[:300])
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    (tmp_path / "empty").mkdir()
    wrong = [broken, tmp_path / "none.png", text, tmp_path / "empty"]
    done = run_command("predict", f"--workdir={run}", *map(str, [wrong[0], *files, *wrong[1:]]))
    assert done.code == 2
    assert len(done.stdout.splitlines()) == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"error: {file}: ") for line, file in zip(lines, wrong, strict=True))
    done = run_command("predict", f"--workdir={run}", "--json", *map(str, [broken, files[0]]))
    first, second = map(json.loads, done.stdout.splitlines())
    assert (done.code, done.stderr) == (2, "")
    assert "unreadable image" in first["error"]
    assert second["classes"][0]["class"] == "green"


@pytest.mark.slow
def test_folder_stands_for_its_images_and_a_hyphen_for_standard_input(run, files, tmp_path):
    paint(tmp_path / "sub" / "d.PNG", "red")
    for name in ("._a.png", "notes.txt", "sub/.hidden.png", "sub/e.GIF", "f.heic"):
        (tmp_path / name).write_text("no image")
    command = [sys.executable, "-m", "experiments.predict", f"--workdir={run}", str(tmp_path), "-"]
    done = subprocess.run(command, capture_output=True, input=files[0].read_bytes())
    types = "1 .gif, 1 .heic (read are .png, .jpg, .jpeg, .webp)"
    note = f"note: {tmp_path}: passed over {types}\n"
    assert (done.returncode, done.stderr.decode()) == (0, note)
    lines = done.stdout.decode().splitlines()
    told = [(*files, tmp_path / "sub" / "d.PNG", "-"), ("green", "red", "blue", "red", "green")]
    for file, colour, line in zip(*told, lines, strict=True):
        assert line.startswith(f"{file}: {colour} ")


@pytest.mark.slow
def test_network_loads_in_a_process_that_has_computed_already(run):
    code = (
        "import sys, jax; jax.numpy.ones(1).sum()\n"
        "from resnet_jax.training import inference\n"
        "print(inference.load(sys.argv[1]).step)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.stdout.strip().isdecimal(), done.stderr


def test_files_are_seen_as_the_test_split_is(run, tmp_path):
    """The same logits as the resident data set has: same decoding, same fit, same colours."""
    for colour in COLOURS:
        for split in ("train", "test"):
            paint(tmp_path / "p" / split / colour / "0.png", colour, 37, 52)
    from resnet_jax.training import inference

    answers = inference.evaluate(run, "test", data_dir=str(tmp_path / "p"))
    net = inference.load(run)
    paths = [tmp_path / "p" / "test" / name / "0.png" for name in net.class_names]
    found = list(inference.predict(net, paths, 3, view=None, cams=None))
    expected = {
        label: np.exp(row) / np.exp(row).sum()
        for label, row in zip(answers.labels, answers.logits.astype(np.float64), strict=True)
    }
    for label, one in enumerate(found):
        shares = dict(one.classes)
        for other, name in enumerate(net.class_names):
            assert shares[name] == pytest.approx(expected[label][other], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "kind"), [((8, 8), np.uint8), ((8, 8, 1), np.uint8), ((8, 8, 3), np.float32)]
)
def test_array_that_is_no_picture_of_the_net_is_refused(shape, kind, run):
    net = inference.load(str(run))
    assert net.as_trained(np.zeros((8, 8, 3), np.uint8)).shape == (16, 16, 3)
    with pytest.raises(InputError, match=r"this network needs uint8 \[height, width, 3\]$"):
        net.as_trained(np.zeros(shape, kind))


def test_network_of_rectangles_sees_them_whole_and_no_other_images(run, tmp_path):
    net = dataclasses.replace(inference.load(str(run)), image_shape=(16, 32, 3))
    picture = np.arange(16 * 32 * 3).astype(np.uint8).reshape(16, 32, 3)
    np.testing.assert_array_equal(net.as_trained(picture), picture)
    files = [paint(tmp_path / "whole.png", "red", 16, 32), paint(tmp_path / "square.png", "red")]
    whole, square = inference.predict(net, files, 1, view=None, cams=None)
    assert whole.classes[0][0] == "red"
    assert square.error == "an image of 24×24; the network takes those of 16×32"
    with pytest.raises(InputError, match="test_crops: the network was shown images of 16×32"):
        next(inference.predict(net, files, 1, view="centre", cams=None))


def test_file_is_turned_as_viewers_turn_it_and_so_is_its_box(run, tmp_path):
    """Green above, red below and wide; stored on its side, with the EXIF orientation saying so."""
    upright = np.zeros((60, 90, 3), np.uint8)
    upright[:25], upright[25:] = COLOURS["green"], COLOURS["red"]
    Image.fromarray(upright).save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "s.png", exif=exif)
    net = inference.load(run)
    files = [tmp_path / "upright.png", tmp_path / "s.png"]
    cams = inference.CamDrawer(net, tmp_path / "maps", None, draw_map, files)
    straight, turned = inference.predict(net, files, 3, view=None, cams=cams)
    assert dict(turned.classes) == pytest.approx(dict(straight.classes), rel=1e-5)
    assert turned.box == straight.box
    assert turned.box.right <= 90
    assert turned.box.bottom <= 60


def test_network_that_was_trained_on_pixels_as_stored_sees_files_so(run, tmp_path):
    stored = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "photograph.png", exif=exif)
    net, seen = inference.load(run), []
    assert net.recipe.dataset.exif_orientation  # an image folder's are turned
    for fields in (
        {"dataset.exif_orientation": False},
        {"dataset.exif_orientation": False, "dataset.name": "imagenet2012"},
    ):
        one = dataclasses.replace(net, recipe=net.recipe.replace(**fields))
        seen.append(inference._read(one, tmp_path / "photograph.png"))
    np.testing.assert_array_equal(seen[0], stored)
    np.testing.assert_array_equal(seen[1], np.rot90(stored, -1))  # of ImageNet few are tagged


@pytest.mark.parametrize(("drawn", "most"), [(False, 0), (True, inference.AT_ONCE_WHOLE)])
def test_few_whole_pictures_are_in_memory_while_the_net_looks(
    drawn, most, run, tmp_path, monkeypatch
):
    files = [
        paint(tmp_path / f"{i}.png", "red", 60, 40) for i in range(2 * inference.AT_ONCE_WHOLE)
    ]
    net, read, look = inference.load(run), inference._read, MultiCropPredictor.__call__
    pictures, kept = [], []

    def reading(*arguments):
        picture = read(*arguments)
        pictures.append(weakref.ref(picture))
        if drawn:
            count()
        return picture

    def looking(*arguments):
        count()
        return look(*arguments)

    def count():
        kept.append(sum(picture() is not None for picture in list(pictures)))

    monkeypatch.setattr(inference, "_read", reading)
    monkeypatch.setattr(MultiCropPredictor, "__call__", looking)
    maps = tmp_path / "maps"
    draw = lambda *arguments: b""
    cams = inference.CamDrawer(net, maps, None, draw, files) if drawn else None
    assert len(list(inference.predict(net, files, 1, view=None, cams=cams))) == len(files)
    assert max(kept) == most


@pytest.mark.slow
@pytest.mark.parametrize("view", ["10-crop", "multi-scale"])
def test_views_serve_files_too(view, run, files, run_command):
    done = run_command("predict", f"--workdir={run}", f"--test_crops={view}", *map(str, files))
    assert [line.split(": ")[1].split()[0] for line in done.stdout.splitlines()] == [
        "green", "red", "blue",
    ]  # fmt: skip


def test_maps_show_where_the_class_is(run, run_command, tmp_path):
    """A red half in a picture of noise: the box is on its side, in the file's own pixels."""
    grey = np.full((40, 120, 3), 120, np.uint8)
    grey[:, 60:] = COLOURS["red"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(grey).save(tmp_path / folder / "half.png")
    files = [str(tmp_path / folder / "half.png") for folder in ("one", "two")]
    maps = tmp_path / "maps"
    done = run_command("predict", f"--workdir={run}", "--json", f"--cam_dir={maps}", *files)
    assert done.code == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert [Path(first["map"]).name, Path(second["map"]).name] == ["half.png", "half-2.png"]
    found = first["box"]
    assert first["classes"][0]["class"] == "red"
    assert 45 <= found["left"] < found["right"] <= 120
    assert Image.open(first["map"]).size[0] > 300


def test_maps_replace_no_file_that_is_there(run, files, run_command, tmp_path):
    """Neither the user's own images nor other maps, and then none is drawn at all."""
    maps, image = tmp_path / "maps", files[0].read_bytes()
    done = run_command("predict", f"--workdir={run}", f"--cam_dir={tmp_path}", str(tmp_path))
    line = f"error: cam_dir='{tmp_path}': holds a.png already; name a new folder\n"
    assert (done.code, done.stdout, done.stderr) == (2, "", line)
    assert sorted(tmp_path.iterdir()) == files
    assert files[0].read_bytes() == image
    net = inference.load(run)
    namesakes = [tmp_path / "a.png", tmp_path / "A.jpg", tmp_path / "a-2.png"]
    drawer = inference.CamDrawer(net, maps, None, draw_map, namesakes)
    assert [path.name for path in drawer._targets.values()] == ["a.png", "A-2.png", "a-2-2.png"]
    maps.mkdir()
    (maps / "A-2.png").touch()
    with pytest.raises(InputError, match=r"maps': holds A-2\.png already"):
        inference.CamDrawer(net, maps, None, draw_map, namesakes)


@pytest.mark.slow
def test_converted_imagenet_net_predicts_and_draws_finer_maps(run_command, files, tmp_path):
    """Its data set has gone since; its classes keep their names."""
    model = zoo.create("resnet-18", 7)
    import jax

    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    source = tmp_path / "net.safetensors"
    weight_files.write(source, pytorch_names.to_torch(variables, model.architecture, "torchvision"))
    for name in "abcdefg":
        paint(tmp_path / "p" / "train" / name / "0.png", "red")
        paint(tmp_path / "p" / "test" / name / "0.png", "red")
    dataset = f"image_folder,data_dir={tmp_path / 'p'},image_size=64"
    export.fill(tmp_path / "run", source, dataset, cifar10.recipe)
    shutil.rmtree(tmp_path / "p")
    flags = [
        f"--workdir={tmp_path / 'run'}",
        f"--cam_dir={tmp_path / 'maps'}",
        "--output_stride=16",
    ]
    done = run_command("predict", *flags, str(files[0]))
    assert done.code == 0, done.stderr
    named = re.findall(r"(\w+) \d+\.\d%", done.stdout)
    assert len(named) == 5  # of its seven
    assert set(named) < set("abcdefg")
    assert (tmp_path / "maps" / "a.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--workdir={run}", "no images: name files"),
        ("--workdir={dir}/none {dir}/a.png", "no run in this folder"),
        ("--workdir={run} --test_crops=crop {dir}/a.png", "test_crops='crop'"),
        ("--workdir={run} --top=0 {dir}/a.png", "top"),
        ("--workdir={run} --step=7 {dir}/a.png", "step=7: no such checkpoint"),
        ("--workdir={run} --output_stride=8 {dir}/a.png", "goes with --cam_dir"),
        ("--workdir={run} --cam_dir={dir}/m --output_stride=8 {dir}/a.png", "ImageNet stem dilate"),
        ("--workdir={run} --mpas={dir}/m {dir}/a.png", "mpas"),
    ],
)
def test_mistake_is_one_line(flags, message, run, files, run_command, tmp_path):
    done = run_command("predict", *[f.format(run=run, dir=tmp_path) for f in flags.split()])
    assert (done.code, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "m").exists()
