"""What is wrong, and what the command then says: one line, exit code 2, and nothing has changed.

Each case runs the real command in a process of its own. `{dir}` stands for a folder that the case's
`made` has filled, `{run}` for a run that is there already.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

TINY = (
    "resnet-8,batch_size=16,num_steps=4,checkpoint_every=2,model.width=4,model.bn_group_size=4,"
    "dataset.train=train[:64],dataset.test=test[:32],num_devices=1"
)
CONFIG = f"--config=configs/digits.py:{TINY}"
SWEEP = "--config=configs/sweeps/digits.py"
FOLDER = (
    f"--config=configs/digits.py:{TINY},dataset.train=train,dataset.test=test,"
    "dataset.name=image_folder,dataset.image_size=8"
)


class Case(NamedTuple):
    """A mistake: a command and its flags, what the one line must hold, and what is there before."""

    command: str
    flags: str
    message: str
    made: Callable[[Path], None] = lambda folder: None


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """All there is in a folder, with contents; less the files by which processes claim one."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else "folder"
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(run_command, tmp_path_factory) -> Path:
    """A run of four steps with checkpoints at 2 and 4."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = run_command("train", CONFIG, f"--workdir={workdir}")
    assert done.code == 0, done.stderr
    return workdir


def check(case: Case, run_command, folder: Path) -> None:
    case.made(folder)
    before = snapshot(folder)
    flags = [flag.format(dir=folder, run=folder / "run") for flag in case.flags.split()]
    if case.command == "train" and "--workdir" not in case.flags:
        flags.append(f"--workdir={folder / 'new'}")
    if case.command == "train" and "--config=" not in case.flags:
        flags.insert(0, CONFIG)
    done = run_command(case.command, *flags)
    assert done.stderr.count("\n") == 1, done.stderr[-3000:]
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert case.message in done.stderr
    assert done.code == 2
    after = snapshot(folder)
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == set()


def fields(*pairs: tuple[str, str]) -> list[Case]:
    return [Case("train", f"--config.{setting}", message) for setting, message in pairs]


CONFIGS = fields(
    ("sede=1", "no config field 'sede' (nearest: seed); allowed are batch_size"),
    ("optimizer.name=adam", "'optimizer.name'; allowed in optimizer are layer_decay"),
    (
        "optimizr.momentum=0.8",
        "'optimizr.momentum' (nearest: optimizer.momentum); allowed are batch_size",
    ),
    ("l_r=0.1", "no config field 'l_r' (nearest: schedule.learning_rate); allowed are"),
    ("seed.x=1", "no config field 'seed.x'"),
    ("optimizer=adam", "config field 'optimizer' is a section; set its fields: optimizer.l"),
    ("optimizer={{'momentum':0.5}}", "config field 'optimizer' is a section; set its fields: "),
    ("seed=one", "one"),
    ("seed=-1", "seed=-1: must not be negative"),
    ("model.name=resnet-21", "model.name='resnet-21'"),
    ("model.shortcut=identify", "nearest: identity"),
    ("num_devices=3", "batch_size=16: 3 devices cannot share it evenly"),
    (
        "grad_accum_steps=2 --config.num_devices=3",
        "batch_size=16: 3 devices cannot share parts of 8 (batch_size / grad_accum_steps) evenly; "
        "give a multiple of 6, or",
    ),
    ("num_devices=99", "num_devices=99: JAX sees 8"),
    ("grad_accum_steps=3", "error: batch_size=16: not a multiple of grad_accum_steps=3"),
    ("optimizer.momentum=nan", "optimizer.momentum=nan: must be finite"),
    ("optimizer.weight_decay=inf", "optimizer.weight_decay=inf"),
    ("label_smoothing=nan", "label_smoothing=nan: must be finite"),
    ("model.gate_bias=nan", "model.gate_bias=nan: must be finite"),
    ("schedule.learning_rate=nan", "schedule.learning_rate=nan"),
    ("schedule.learning_rate=inf", "schedule.learning_rate=inf"),
    ("schedule.boundaries=(0.5,'late')", "late"),
    ("dataset.name=digit", "nearest: digits"),
    ("dataset.train=trian", "trian"),
    ("dataset.train=train[:10", "train[:10"),
    ("dataset.train=", "dataset.train=''"),
    ("dataset.mean=imagenet", "for 3 colours"),
    ("dataset.image_size=32", "image_size=32"),
)

COMMAND_LINES = [
    Case("train", "--cofnig.seed=1", "cofnig"),
    Case("train", "stray", "unexpected argument 'stray'"),
    Case("train", "configs/digits.py:plain-8", ", here --config=configs/digits.py:plain-8"),
    Case("train", "configs/digits.py:plain-8 --workdir run", "here --config=configs/digits.py:pl"),
    Case("train", "--config configs/digits.py --config.sede=1", "nearest: seed"),
    Case(
        "train",
        f"{CONFIG} --config.freeze=stem --config.model.bn_group_size=none",
        "=none: give it after",
    ),
    Case("train", f"{CONFIG} --config.num_steps=none", "num_steps=None: must be a whole number"),
    Case("train", "--workdir=", "workdir"),
    Case("train", "--config=configs/sweeps/digits.py", "it is a sweep, for experiments.sweep"),
    Case("train", "--num_processes=2", "all three are needed"),
    Case("train", "--num_processes=0", "num_processes=0: must be at least 1"),
    Case("train", "--coordinator=here --num_processes=2 --process_id=0", "expected host:port"),
    Case("train", "--coordinator=a:1 --num_processes=2 --process_id=2", "must be from 0 to 1"),
    Case("train", "--config=configs/digit.py", "nearest: configs/digits.py"),
    Case("train", "--config=configs", "configs"),
    Case("train", "--config=configs/digits.py:resnet-20,sede=1", "nearest: seed"),
    Case("train", "--config=configs/digits.py:resnet-20,seed=one", "seed='one'"),
    Case("train", "--config=README.md", "README.md"),
    Case("train", f"{CONFIG} {CONFIG} --config.seed=-1", "config: given twice"),
    Case("train", "--config.dataset.data_dir={dir}", "digits come with scikit-learn"),
    Case("evaluate", "", "--workdir is missing: give --workdir=VALUE"),
    Case("evaluate", "--workdir={dir}/none", "no run in this folder"),
    Case("evaluate", "--workdir={dir} --step=two", "flag --step=two: must be a whole number"),
    Case("check", "--checks=", "checks='': allowed are gradients, "),
    Case("benchmark", "--models=", "name='': names are plain-N"),
    Case("convert", "--workdir={dir}/new", "either --source"),
    Case("convert", "--workdir={dir}/new --source={dir}/a.onnx", "unknown kind of file"),
    Case("convert", "--workdir={dir}/new --source={dir}/a.safetensors", "no such file"),
    Case("convert", "--workdir={dir}/new --output={dir}/a.safetensors", "no run in this folder"),
    Case("convert", "--workdir={dir}/new --source={dir}/a --output={dir}/b", "either --source"),
    Case("convert", "--workdir={dir}/new --source={dir}/a --step=3", "step=3"),
    Case("convert", "--workdir={dir}/new --output={dir}/a --dataset=digits", "dataset='digits'"),
    Case("report", "--workdir={dir}", "no runs found in this folder"),
    Case("report", "--workdir={dir}/none", "no such folder"),
    Case("prepare_data", "--dataset=cifar11 --data_dir={dir}", "nearest: cifar10"),
    Case("prepare_data", "--dataset=CIFAR10 --data_dir={dir}", "nearest: cifar10"),
    Case(
        "prepare_data",
        "--dataset=pets --data_dir={dir}",
        "for one of your own images: --source=TREE",
    ),
    Case("prepare_data", "--dataset=cifar10 --source={dir}/none --data_dir={dir}", "not a folder"),
    Case("prepare_data", "--dataset=mnist --source={dir} --data_dir={dir}-data", "missing t10k"),
    Case("sweep", "--config=configs/sweeps/digit.py --workdir={dir}/new", "nearest: digits.py"),
    Case("sweep", "configs/sweeps/digits.py --workdir={dir}/new", "here --config=configs/sweeps"),
    Case("sweep", "--config=configs/digits.py --workdir={dir}/new", "it is a run's config"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --executor=slrum", "nearest: slurm"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --filter=(", "not a regular expression"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --filter=renset", "matches no run"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --seeds=0", "seeds=0: must be at least 1"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --num_steps=-1", "num_steps=-1"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --workers=0", "workers"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --override=seed", "expected field=value"),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/new --override=sede=1", "nearest: seed"),
]


@pytest.mark.parametrize("case", CONFIGS + COMMAND_LINES, ids=lambda case: case.flags[:50])
def test_mistake_in_a_config_or_flag_is_one_line(case, run_command, tmp_path):
    check(case, run_command, tmp_path)


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return made


def pictures(folder: Path) -> Path:
    """Four pictures of two classes in train/ and test/ of a folder."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    for i, (split, name) in enumerate((s, n) for s in ("train", "test") for n in ("cat", "dog")):
        (folder / split / name).mkdir(parents=True)
        Image.fromarray(colours[i]).save(folder / split / name / "0.png")
    return folder


def spoilt(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: spoil(pictures(folder))


def truncate(folder: Path) -> None:
    path = folder / "train/dog/0.png"
    path.write_bytes(path.read_bytes()[:60])


def deepen(folder: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "train/dog/0.png")


def folder_case(message: str, made: Callable[[Path], None]) -> Case:
    return Case("train", f"{FOLDER} --config.dataset.data_dir={{dir}}", message, made)


PICTURES = [
    Case("train", FOLDER, "data_dir=None"),
    Case("train", f"{FOLDER} --config.dataset.data_dir={{dir}}/none", "no such folder"),
    folder_case("no such folder", lambda folder: None),
    folder_case("no class folders", lambda folder: (folder / "train").mkdir()),
    folder_case("no images", spoilt(lambda f: (f / "train/eel").mkdir())),
    folder_case("not a class", spoilt(lambda f: shutil.copytree(f / "test/cat", f / "test/eel"))),
    folder_case("train/dog/0.png: unreadable", spoilt(truncate)),
    folder_case("train/dog/0.png: unreadable", spoilt(write("train/dog/0.png", b""))),
    folder_case("train/dog/0.png: unreadable", spoilt(write("train/dog/0.png", "a text"))),
    folder_case("more than 8 bits", spoilt(deepen)),
    folder_case("is not UTF-8", spoilt(lambda f: (f / "train" / "caf\udce9").mkdir())),
    folder_case("'test'", spoilt(lambda f: shutil.rmtree(f / "test"))),
    folder_case("no such folder", write("train", "a file in the way")),
]


@pytest.mark.parametrize("case", PICTURES, ids=lambda case: case.message)
def test_mistake_in_a_folder_of_pictures_is_one_line(case, run_command, tmp_path):
    check(case, run_command, tmp_path)


NEW = "--workdir={dir}/new"
FILES = [
    Case("train", "--workdir={dir}/file", "file", write("file", "in the way")),
    Case("train", "--workdir={dir}/file/run", "file", write("file", "in the way")),
    Case("train", "--workdir=/sys/resnet_jax", "cannot be written"),
    Case("train", "--config={dir}/c.py", "get_config", write("c.py", "CONFIG = 1\n")),
    Case("train", "--config={dir}/c.py", "c.py", write("c.py", "def get_config(:\n")),
    Case("train", "--config={dir}/c.py", "get_config returned 3, not a ConfigDict",
         write("c.py", "def get_config():\n    return 3\n")),
    Case("train", "--config={dir}/c.py --config.sede=1", "no config field 'sed'",
         write("c.py", "from configs.digits import get_config as get\n\n"
               "def get_config():\n    return get().sed\n")),
    Case("train", "--config={dir}/c.py:plain-8", "c.py: TypeError: get_config() takes 0 positional",
         write("c.py", "def get_config():\n    pass\n")),
    Case("train", "--config={dir}/c.py:plain-8", "get_config returned None, not a ConfigDict",
         write("c.py", "def get_config(name):\n    pass\n")),
    Case("train", "--config={dir}/c.py", "c.py, line 2: KeyError: 'oops'",
         write("c.py", "def get_config():\n    return {}['oops']\n")),
    Case("train", "--config={dir}/c.py", "c.py, line 2: TypeError: ",
         write("c.py", "def get_config():\n    return None + 1\n")),
    Case("analyze", "--study=responses --config={dir}/c.py --output={dir}/new",
         "c.py, line 2: KeyError: 'oops'",
         write("c.py", "def get_config():\n    return {}['oops']\n")),
    Case("benchmark", "--config={dir}/c.py", "c.py: get_config returned None, not a ConfigDict",
         write("c.py", "def get_config(name):\n    pass\n")),
    Case("sweep", f"--config={{dir}}/s.py {NEW}", "s.py: get_config returned None, not a ConfigD",
         write("s.py", "TITLE, PAPER, RECIPE, CONFIG = 't', None, 'other', __file__\n"
               "def get_sweep():\n    yield {'model.name': 'plain-8'}\n\n"
               "def get_config(name):\n    pass\n")),
    Case("convert", f"--source={{dir}}/a.safetensors {NEW}", "not a readable safetensors file",
         write("a.safetensors", "no tensors")),
    Case("convert", f"--source={{dir}}/a.pth {NEW}", "a.pth", write("a.pth", "no pickle")),
    Case("sweep", f"--config={{dir}}/s.py {NEW}", "has no get_sweep", write("s.py", "TITLE = 1\n")),
    Case("sweep", f"--config={{dir}}/s.py {NEW}", "s.py", write("s.py", "def get_sweep(:\n")),
    Case("sweep", f"{SWEEP} --workdir={{dir}}/file", "file", write("file", "in the way")),
    Case("sweep", f"{SWEEP} --workdir={{dir}}", "sweep.json: cannot be read",
         write("sweep.json", "{")),
    Case("report", "--workdir={dir}/file", "file", write("file", "no folder")),
    Case("prepare_data", "--dataset=cifar10 --source={dir} --data_dir={dir}-data",
         "not a tar archive", write("cifar-10-binary.tar.gz", "no archive")),
    Case("prepare_data", "--dataset=cifar10 --source={dir} --data_dir={dir}-data",
         "not whole 3073-byte records", write("data_batch_1.bin", b"0" * 100)),
]  # fmt: skip


@pytest.mark.parametrize("case", FILES, ids=lambda case: f"{case.command}-{case.message}")
def test_mistake_in_a_file_is_one_line(case, run_command, tmp_path):
    check(case, run_command, tmp_path)


def unfinished(folder: Path) -> None:
    (folder / "run/summary.json").unlink()


def edited(name: str, **changes) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        path = folder / "run" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return made


def saved_by_a_newer_version(folder: Path) -> None:
    unfinished(folder)
    edited("checkpoints/4/_CHECKPOINT_METADATA", custom_metadata={"format": 99})(folder)


def all_damaged(folder: Path) -> None:
    unfinished(folder)
    for step in (2, 4):
        (folder / f"run/checkpoints/{step}/default/manifest.ocdbt").unlink()


def of_another_net(folder: Path) -> None:
    """The config, but not the checkpoints, of a net twice as wide."""
    unfinished(folder)
    path = folder / "run/config.json"
    path.write_text(path.read_text().replace('"width": 4', '"width": 8'))


def without_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "run/checkpoints")


def of_weights_alone(folder: Path) -> None:
    for path in (folder / "run").iterdir():
        if path.is_file():
            path.unlink()


RUN = "--workdir={run}"
ON_A_RUN = [
    Case("train", f"{RUN} --config.seed=1", "seed: 0, now 1"),
    Case("train", RUN, "config.json: cannot be read", write("run/config.json", "{")),
    Case("train", RUN, "config.json: not a JSON object", write("run/config.json", "[]")),
    Case("train", RUN, "format 99 is newer", edited("config.json", format=99)),
    Case("train", RUN, "config.json: missing", lambda f: (f / "run/config.json").unlink()),
    Case("train", RUN, "config.json: missing", of_weights_alone),
    Case("train", RUN, "summary.json: cannot be read", write("run/summary.json", "{")),
    Case("train", RUN, "delete", all_damaged),
    Case("train", f"{RUN} --config.model.width=8", "not a checkpoint of this network",
         of_another_net),
    Case("train", RUN, "format 99 is newer", saved_by_a_newer_version),
    Case("train", RUN, "checkpoints", lambda f: (unfinished(f), without_checkpoints(f),
         write("run/checkpoints", "a file in the way")(f))),
    Case("evaluate", f"{RUN} --split=val", "split='val': allowed are train, test"),
    Case("evaluate", f"{RUN} --step=3", "step=3: no such checkpoint"),
    Case("evaluate", f"{RUN} --step=4", "damaged", all_damaged),
    Case("evaluate", RUN, "damaged", all_damaged),
    Case("evaluate", RUN, "no checkpoint in this folder", without_checkpoints),
    Case("evaluate", RUN, "not a checkpoint of this network", of_another_net),
    Case("evaluate", RUN, "config.json", write("run/config.json", "{")),
    Case("evaluate", RUN, "config.json: holds no config", write("run/config.json", '{"format":1}')),
    Case("evaluate", "--workdir={dir}", "name one of those in it: run"),
    Case("evaluate", RUN, "config.json", edited("config.json", format=99)),
    Case("evaluate", RUN, "config.json", edited("config.json", config={"seed": 0})),
    Case("evaluate", RUN, "format 99 is newer", saved_by_a_newer_version),
    Case("convert", f"{RUN} --source={{dir}}/a.safetensors", "holds a run already"),
    Case("convert", f"{RUN} --source={{dir}}/a.safetensors", "holds a run already",
         of_weights_alone),
    Case("convert", f"{RUN} --output={{dir}}/a.pb", "unknown kind of file"),
    Case("convert", f"{RUN} --output={{dir}}/a.safetensors --step=3", "step=3: no such checkpoint"),
    Case("convert", f"{RUN} --output={{dir}}/a.safetensors", "damaged", all_damaged),
    Case("convert", f"{RUN} --output={{dir}}/f/a.safetensors", "cannot be written",
         write("f", "a file in the way")),
    Case("report", f"{RUN} --output=/proc/report", "/proc/report: No such file or directory"),
    Case("sweep", f"{SWEEP} {RUN} --dry_run", "holds a run; give the sweep a folder of its own"),
    Case("report", f"{RUN} --output={{dir}}/f", "f", write("f", "a file in the way")),
]  # fmt: skip


@pytest.mark.parametrize("case", ON_A_RUN, ids=lambda case: f"{case.command}-{case.message}")
def test_mistake_about_a_run_is_one_line(case, run_command, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    check(case, run_command, tmp_path)


@pytest.mark.parametrize("command", ["evaluate", "convert"])
def test_damaged_checkpoint_is_one_line_beside_the_result_of_the_one_before(
    command, run_command, finished, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    for file in (tmp_path / "run/checkpoints/4/default").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    before = snapshot(tmp_path / "run")
    flags = [f"--output={tmp_path / 'net.safetensors'}"] if command == "convert" else []
    done = run_command(command, f"--workdir={tmp_path / 'run'}", *flags)
    assert done.code == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr[:3000]
    assert "checkpoints/4 is damaged" in done.stderr
    assert ('"step": 2' if command == "evaluate" else "at step 2,") in done.stdout
    assert snapshot(tmp_path / "run") == before
