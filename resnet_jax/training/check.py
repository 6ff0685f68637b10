"""Whether this machine computes what it should, and how fast.

Each part runs in processes of its own, so that a compiler that crashes or hangs is a finding:

    python -m resnet_jax.training.check PART '{"onednn": true, …}'

is such a process. `run` starts them, and needs no device itself.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from resnet_jax import runs
from resnet_jax.data import device_dataset, image_ops, streaming
from resnet_jax.data.image_ops import EncodedImage
from resnet_jax.data.tfds_sets import Records
from resnet_jax.models.architecture import Architecture
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import Recipe
from resnet_jax.runtime import cpu, parallel, setup
from resnet_jax.training import schedules, state, step, trainer
from resnet_jax.training.run import train

FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {"shortcut": "none"},
    "residual": {},
    "pre-activation": {"order": "full_preact"},
    # With the stem whose max-pool and 7×7 convolution no other has.
    "bottleneck": {"block": "bottleneck", "option": "B", "stem": "imagenet"},
}
LIMITS = {"float32": 1e-4, "bfloat16": 0.25}
"""Of a gradient's distance from that in float64, over the latter's norm, by kind of parameter."""

_BATCH, _GROUP, _SIZE, _CLASSES = 64, 8, 16, 10
_KILLED = "killed and resumed"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
      check: the part.
      case: what was looked at.
      value: what was found; None if there is no result, which `note` explains.
      limit: a larger `value` is a deviation; None for what is only told.
      unit: of the value.
      note: on what the value cannot say.
    """

    check: str
    case: str
    value: float | None
    limit: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def deviates(self) -> bool:
        if self.value is None or math.isnan(self.value):
            return True
        return self.limit is not None and self.value > self.limit

    def __str__(self) -> str:
        found = "no result" if self.value is None else f"{self.value:.2g} {self.unit}".strip()
        allowed = "" if self.limit is None else f", at most {self.limit:g}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.check}: {self.case}: {found}{allowed}{note}"


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step whose gradient is compared.

    Attributes:
      family: a key of `FAMILIES`.
      norm, dtype: of the network.
      engine: a key of `parallel.ENGINES`.
      spread: over all devices that can share the batch-norm groups, or on one.
    """

    family: str
    norm: str
    dtype: str
    engine: str = "jit"
    spread: bool = False

    def __str__(self) -> str:
        norm = "batch norm" if self.norm == "batch" else "no norm"
        devices = "all devices" if self.spread else "one device"
        return f"{self.family}, {norm}, {self.dtype}, {self.engine}, {devices}"

    @property
    def reference(self) -> str:
        """The name of what it is compared with: dtype and devices do not matter there."""
        return f"{self.family}-{self.norm}"

    def model(self, dtype: str) -> ResNet:
        """Two stages of one block: a stem, a stride and a change of shape."""
        axes = {"norm": self.norm, "bn_group_size": _GROUP, **FAMILIES[self.family]}
        net = Architecture(stage_sizes=(1, 1), width=8, **axes)
        return ResNet(net, jnp.dtype(dtype), num_classes=_CLASSES)


CASES = tuple(
    Case(*axes) for axes in itertools.product(FAMILIES, ("batch", "none"), ("float32", "bfloat16"))
)
_ALONE = Case("residual", "batch", "float32")
_SPREAD = dataclasses.replace(_ALONE, spread=True)
_PMAPPED = dataclasses.replace(_SPREAD, engine="pmap")


def run(
    checks: Sequence[str],
    *,
    tiny: Recipe,
    timed: Recipe,
    timeout: float,
    note: Callable[[str], None] = print,
) -> list[Finding]:
    """Makes the checks, one after another.

    Args:
      checks: keys of `CHECKS`.
      tiny: of the run that is killed and resumed.
      timed: whose speed is measured, on random images of CIFAR's size; its `onednn` and
        `deterministic` hold for all parts.
      timeout: seconds after which a process counts as hanging.
      note: is told what begins.
    """
    options = {"onednn": timed.onednn, "deterministic": timed.deterministic}
    found: list[Finding] = []
    for name in checks:
        note(f"{name} …")
        with tempfile.TemporaryDirectory() as folder:
            work = _Work(Path(folder), options, timeout, tiny, timed)
            found += CHECKS[name](work)
    return found


@dataclasses.dataclass(frozen=True)
class _Work:
    """What a check works with: a folder of its own, and how processes are set up."""

    folder: Path
    options: Mapping[str, bool]
    timeout: float
    tiny: Recipe
    timed: Recipe

    def start(self, part: str, **environment: str) -> "_Process":
        """Starts a part; what it needs stands in files of the folder."""
        asked = json.dumps({**self.options, "folder": str(self.folder)})
        return _Process([__name__, part, asked], self.folder / "cache", environment)


class _Process:
    """A Python process that prints its result as its last line, in JSON."""

    def __init__(self, module: Sequence[str], cache: Path, environment: Mapping[str, str]):
        own = {
            # What an earlier check compiled would tell nothing of today's compiler.
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            # Several share one accelerator: JAX must not take most of its memory beforehand.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **own, **environment},
        )

    def result(self, timeout: float) -> tuple[Any, str]:
        """What it found, and "" or how it failed."""
        try:
            said, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None, f"no answer in {timeout:.0f} s"
        code = self._process.returncode
        if code == 0:
            return json.loads(said.splitlines()[-1]), ""
        if code < 0:
            return None, f"killed by {signal.Signals(-code).name}"
        lines = [line for line in errors.splitlines() if line.strip()]
        return None, lines[-1][:200] if lines else f"exit code {code}"

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _check_gradients(work: _Work) -> Iterator[Finding]:
    """Gradients against float64, the same step twice, and the engines against each other."""
    reference = work.start(
        "reference",
        JAX_ENABLE_X64="1",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    dtypes = dict.fromkeys(case.dtype for case in CASES)
    own: Iterable[tuple[str, _Process]] = (
        (dtype, work.start(f"gradients_{dtype}")) for dtype in dtypes
    )
    if not setup.one_process_at_a_time():
        own = list(own)  # All at once, because compiling takes the time, a core each.
    ends = {dtype: process.result(work.timeout) for dtype, process in own}
    failures = {dtype: failure for dtype, (_, failure) in ends.items()}
    _, no_reference = reference.result(work.timeout)
    for case in CASES:
        limit, unit = LIMITS[case.dtype], "of the norm"
        value = _distance(work.folder, str(case), case.reference)
        told = failures[case.dtype] or no_reference
        yield Finding("gradients", str(case), value, limit, unit, told)
    for case in (*CASES, _SPREAD, _PMAPPED):
        saved = _load(work.folder, str(case))
        value = None if saved is None else float(saved["different_bits"])
        yield Finding("same step twice", str(case), value, 0, "arrays differ", failures[case.dtype])
    devices, failure = ends[_SPREAD.dtype]
    told = failure or f"{devices} device(s)"
    for name, case, other in (
        ("all devices = one device", _SPREAD, _ALONE),
        ("pmap = jit", _PMAPPED, _SPREAD),
    ):
        value = _distance(work.folder, str(case), str(other))
        yield Finding("engines", name, value, LIMITS["float32"], "of the norm", told)


def _distance(folder: Path, name: str, reference: str) -> float | None:
    """|gradient − reference| / |reference|, the largest of kernels, biases and scales."""
    gradient, wanted = _load(folder, name), _load(folder, reference)
    if gradient is None or wanted is None:
        return None
    kinds: dict[str, list[str]] = {}
    for path in wanted.keys() - {"different_bits"}:
        kinds.setdefault(path.rpartition("/")[2], []).append(path)
    squares = lambda arrays: sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays)
    return max(
        math.sqrt(
            squares(gradient[path] - wanted[path].astype(np.float64) for path in paths)
            / squares(wanted[path] for path in paths)
        )
        for paths in kinds.values()
    )


def _load(folder: Path, name: str) -> dict[str, np.ndarray] | None:
    path = folder / f"{name}.npz"
    return dict(np.load(path)) if path.exists() else None


def _save(folder: Path, name: str, gradient: Any, different_bits: int = 0) -> None:
    leaves = flatten_dict(gradient, sep="/")
    flat: dict[str, Any] = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    # Whole or not at all, because a process may crash.
    partial = folder / f"partial-{name}.npz"
    np.savez(partial, different_bits=different_bits, **flat)
    partial.rename(folder / f"{name}.npz")


def _reference(folder: Path) -> None:
    """Part of a process with float64: gradients as JAX derives them, of the mean loss."""
    images, labels = _examples()
    order = device_dataset.batch_indices(0, 0, _BATCH, _BATCH)
    images, labels = (images[order] / 255 - 0.5) / 0.25, labels[order]
    for name, case in {case.reference: case for case in CASES}.items():
        model = case.model("float64")
        variables = _weights(model)

        def loss(params, model=model, variables=variables):
            variables = {**variables, "params": params}
            logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return step.cross_entropy(logits, labels).mean()

        with cpu.as_jax_has_it():
            wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables["params"])
            gradient = jax.jit(jax.grad(loss))(wide)
        _save(folder, name, gradient)


def _gradients(folder: Path, dtype: str) -> int:
    """Part of a process: gradients as a training step has them; returns how many devices."""
    cases = [case for case in (*CASES, _SPREAD, _PMAPPED) if case.dtype == dtype]
    # By default Ampere's and later GPUs round the factors of float32 products to TF32, and TPUs to
    # bfloat16: that is as it should be, and far from what float32 can do.
    exact = jax.default_matmul_precision("highest")
    with exact if dtype == "float32" else contextlib.nullcontext():
        for case in cases:
            first, second = _gradient_twice(case)
            pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
            different = sum(int((a.view(np.uint8) != b.view(np.uint8)).any()) for a, b in pairs)
            _save(folder, str(case), first, different)
    return _num_devices(cases[-1])


def _num_devices(case: Case) -> int:
    shared = parallel.most_devices(_BATCH // _GROUP, jax.device_count())
    return shared if case.spread else 1


def _gradient_twice(case: Case) -> tuple[Any, Any]:
    """What momentum holds after a first step without weight decay, of two such steps."""
    num_devices = _num_devices(case)
    mesh = parallel.make_mesh(_BATCH, _BATCH // _GROUP, num_devices)
    model, optimizer = case.model(case.dtype), step.sgd(0.9, 0.0)
    schedule = schedules.Schedule("constant", 1, 0.1)
    mean, std = np.full((_SIZE, _SIZE, 3), 0.5, np.float32), np.array(0.25, np.float32)
    normalization = device_dataset.Normalization(mean, std)
    data = device_dataset.DeviceDataset(*_examples(), normalization)
    data = parallel.device_put_global(data, parallel.replicated(mesh))
    axis = parallel.axis_name(case.engine)
    run_steps = trainer.make_run_steps(
        step.make_train_step(
            model, optimizer, schedule, mesh=mesh if axis is None else None, axis_name=axis
        ),
        mesh,
        key=jax.random.key(0),
        seed=0,
        batch_size=_BATCH,
        loops={},
        engine=case.engine,
    )

    def gradient():
        """Of the loss of one batch, in every parameter."""
        start = state.begin(_weights(model), optimizer, schedule)
        start = parallel.device_put_global(start, parallel.replicated(mesh))
        after = run_steps(start, data, 0, 1)
        return jax.tree.map(np.asarray, after.opt_state[1].trace)

    return gradient(), gradient()


def _examples() -> tuple[np.ndarray, np.ndarray]:
    """A batch of random images, uint8, and labels, int32."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(_BATCH, _SIZE, _SIZE, 3), dtype=np.uint8)
    return images, random.integers(_CLASSES, size=_BATCH, dtype=np.int32)


def _weights(model: ResNet) -> dict[str, Any]:
    """Parameters and batch statistics, float32: drawn by NumPy, the same in every process."""
    images = jax.ShapeDtypeStruct((_GROUP, _SIZE, _SIZE, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key: model.lazy_init(key, images), jax.random.key(0))
    random = np.random.default_rng(1)

    def draw(path, leaf):
        values = random.standard_normal(leaf.shape)
        name = path[-1].key
        if name == "kernel":  # He et al. 2015
            values *= math.sqrt(2 / math.prod(leaf.shape[:-1]))
        else:
            values = 0.1 * values + (name in ("scale", "var"))
        return values.astype(np.float32)

    drawn = jax.tree_util.tree_map_with_path(draw, dict(shapes))
    return {**drawn, "batch_stats": jax.tree.map(np.abs, drawn.get("batch_stats", {}))}


def _check_stream(work: _Work) -> Iterator[Finding]:
    different, failure = work.start("stream", JAX_PLATFORMS="cpu").result(work.timeout)
    case = "batches of a worker process = cut by hand"
    yield Finding("stream", case, different, 0, "pixels differ", failure)


class _NoiseImages(Records):
    """Records of random images; their shorter side is the one that crops are made of."""

    def __init__(self, count: int, shorter_side: int):
        random = np.random.default_rng(0)
        sizes = [(shorter_side, shorter_side + i) for i in range(count)]
        sizes = [size if i % 2 else size[::-1] for i, size in enumerate(sizes)]
        self.images = [random.integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> EncodedImage:
        file = io.BytesIO()
        Image.fromarray(self.images[index]).save(file, "png")
        return EncodedImage(file.getvalue(), index % 2, str(index))


def _stream(folder: Path, num_workers: int = 1) -> int:
    """Part of a process: in how many pixels two batches differ from slices of the images."""
    del folder
    size, batch = 24, 8
    records = _NoiseImages(12, shorter_side=32)
    crops = image_ops.CropConfig(size=size, scales=(32, 32), shorter_side=32)
    receiver = streaming.Receiver(device_dataset.Normalization(np.zeros(3), np.ones(3)))
    stream = streaming.Stream(
        records,
        receiver,
        augmentation="scale",
        crops=crops,
        rows=np.arange(batch),
        num_workers=num_workers,
    )
    different = 0
    try:
        for number in range(2):
            (images,), (labels,) = stream.inputs(0, number, number + 1, batch, None)
            order = device_dataset.batch_indices(0, number, batch, len(records))
            for row, index in enumerate(order):
                draws = image_ops.crop_uniforms(0, number * batch + row)
                whole = records.images[index]
                left = int(draws[1] * (whole.shape[1] - size + 1))
                top = int(draws[2] * (whole.shape[0] - size + 1))
                wanted = whole[top : top + size, left : left + size]
                wanted = wanted[:, ::-1] if draws[-1] < 0.5 else wanted
                different += int((images[row] != wanted).any(-1).sum())
                different += int(labels[row] != index % 2)
    finally:
        stream.close()
    return different


def _check_resume(work: _Work) -> Iterator[Finding]:
    """A run that is killed after its first checkpoint and resumed, beside one that is not."""
    (work.folder / "recipe.json").write_text(json.dumps(work.tiny.to_dict()))
    whole = None if setup.one_process_at_a_time() else work.start("train_whole")
    struck = work.start("train_killed")
    end = time.monotonic() + work.timeout
    begun = lambda: runs.checkpoint_steps(work.folder / "killed")
    while struck.running() and not begun() and time.monotonic() < end:
        time.sleep(0.01)
    struck.kill()
    too_late = (work.folder / "killed" / "summary.json").exists()
    _, failure = work.start("train_killed").result(work.timeout)
    _, whole_failure = (whole or work.start("train_whole")).result(work.timeout)
    failure = failure or whole_failure or "it ended before it could be killed" * too_late
    if failure:
        yield Finding("resume", _KILLED, None, 0, "", failure)
        return
    rows, digests = zip(
        *(_left_by(work.folder / name) for name in ("whole", "killed")), strict=True
    )
    yield Finding("resume", f"{_KILLED}: last state", float(digests[0] != digests[1]), 0, "differ")
    different = sum(a != b for a, b in itertools.zip_longest(*rows))
    yield Finding("resume", f"{_KILLED}: rows of the log", different, 0, "differ")


def _train(folder: Path, name: str) -> int:
    recipe = Recipe.from_config(json.loads((folder / "recipe.json").read_text()))
    return train(recipe, folder / name)


def _left_by(workdir: Path) -> tuple[list[runs.Row], str]:
    """The rows of a run, less their times, and the digest of its last state."""
    times = ("seconds", "images_per_second")
    rows = [
        {key: value for key, value in row.items() if key not in times}
        for row in runs.read_run(workdir).rows
    ]
    last = workdir / "checkpoints" / str(runs.checkpoint_steps(workdir)[-1])
    metadata = json.loads((last / "_CHECKPOINT_METADATA").read_text())
    return rows, metadata["custom_metadata"]["digest"]


def _check_speed(work: _Work) -> Iterator[Finding]:
    recipe = work.timed
    asked = {
        "recipe": recipe.to_dict(),
        "image_shape": (32, 32, 3),
        "num_classes": 10,
        "num_examples": 4 * recipe.batch_size,
        "repeats": 3,
        "seconds": 1.0,
    }
    module = ["resnet_jax.training.speed", json.dumps(asked)]
    found, failure = _Process(module, work.folder / "cache", {}).result(work.timeout)
    name = f"{recipe.model.name}, batch {recipe.batch_size}"
    if failure:
        yield Finding("speed", name, None, note=failure)
        return
    for kind in ("train", "evaluate"):
        rate = statistics.median(found[f"{kind}_images_per_second"])
        note = f"{found['devices']} of {found['machine']}, JAX {found['versions']['jax']}"
        yield Finding("speed", f"{name}: {kind}", rate, unit="images/s", note=note)
    compiling = found["trace_seconds"] + found["compile_seconds"]
    yield Finding("speed", f"{name}: trace and compile", compiling, unit="s")
    peak = found["device_peak_bytes"] or found["process_peak_bytes"]
    for what, size in (("program", found["program_bytes"]), ("peak", peak)):
        yield Finding("speed", f"{name}: memory, {what}", size / 1e6, unit="MB")
    untimed = recipe.deterministic and found["platform"] == "gpu"
    autotuned = "no kernel is timed: deterministic" if untimed else ""
    for kernel, count in found["convolutions"].items():
        yield Finding("speed", f"{name}: convolutions by {kernel}", count, note=autotuned)


CHECKS: dict[str, Callable[[_Work], Iterator[Finding]]] = {
    "gradients": _check_gradients,
    "stream": _check_stream,
    "resume": _check_resume,
    "speed": _check_speed,
}
_PARTS: dict[str, Callable[[Path], Any]] = {
    "reference": _reference,
    "gradients_float32": lambda folder: _gradients(folder, "float32"),
    "gradients_bfloat16": lambda folder: _gradients(folder, "bfloat16"),
    "stream": _stream,
    "train_whole": lambda folder: _train(folder, "whole"),
    "train_killed": lambda folder: _train(folder, "killed"),
}


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    workfolder = Path(asked.pop("folder"))
    setup.prepare(**asked)
    print(json.dumps(_PARTS[sys.argv[1]](workfolder)))
