"""A stream's batches are a pure function of seed and step, whoever makes them."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from photographs import sample
from PIL import Image

from resnet_jax.data import (
    datasets,
    device_dataset,
    folder_to_tfds,
    image_ops,
    streaming,
)
from resnet_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
CROPS = image_ops.CropConfig(size=16, scales=(18, 30), shorter_side=18)
NUM = 22


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    """A set of 22 pictures, of which each has a colour, and so a mean, of its own."""
    root = tmp_path_factory.mktemp("streaming")
    for i in range(NUM):
        folder = root / "tree" / "train" / ("even" if i % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20 + i, 40 - i, 3), 10 * i, np.uint8)
        pixels[:, ::2] += 9  # so that crops and flips of one picture differ
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    folder_to_tfds.prepare("colours", str(root), str(root / "tree"))
    return str(root)


def receiver(deviation: float = 0.0) -> streaming.Receiver:
    mean = np.full((16, 16, 3), 0.25, np.float32)
    return streaming.Receiver(
        device_dataset.Normalization(mean, np.full(3, 0.5, np.float32)), deviation
    )


def stream(data_dir: str, rows=None, workers: int = 0, **options) -> streaming.Stream:
    settings = {"augmentation": "scale", "crops": CROPS} | options
    rows = np.arange(8) if rows is None else rows
    opened = datasets.open_records("colours", "train", data_dir)
    return streaming.Stream(opened, receiver(), rows=rows, num_workers=workers, **settings)


def batches(of: streaming.Stream, steps, seed: int = 3) -> list[streaming.Batch]:
    return [of.inputs(seed, step, step + 1, 8, after=None) for step in steps]


def same(some, others) -> bool:
    return all(
        np.array_equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def which(images: np.ndarray) -> list[int]:
    """The pictures that crops are of."""
    return [int(crop.mean() // 10) for crop in images.reshape(-1, 16 * 16 * 3)]


def test_batch_holds_crops_as_bytes_and_their_labels(data_dir: str):
    images, labels = stream(data_dir).inputs(0, 5, 7, 8, after=None)
    assert (images.shape, images.dtype) == ((2, 8, 16, 16, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((2, 8), np.int32)
    np.testing.assert_array_equal(np.array(which(images)) % 2, labels.ravel())


def test_every_picture_is_seen_once_an_epoch_in_the_order_of_resident_data(data_dir: str):
    seen = np.concatenate([which(images) for images, _ in batches(stream(data_dir), range(11))])
    for epoch in seen.reshape(-1, NUM):
        assert sorted(epoch) == list(range(NUM))
    opened = datasets.open_records("colours", "train", data_dir)
    order = [device_dataset.batch_indices(3, step, 8, NUM) for step in range(11)]
    assert seen.tolist() == [int(opened[int(i)].name[:2]) for i in np.concatenate(order)]


def test_stream_that_begins_in_mid_epoch_goes_on_with_the_same_bits(data_dir: str):
    whole = batches(stream(data_dir), range(9))
    assert same(batches(stream(data_dir), range(4, 9)), whole[4:])
    jumping = stream(data_dir)
    assert same(batches(jumping, [7, 8, 2, 3]), [whole[i] for i in (7, 8, 2, 3)])


@pytest.mark.slow
def test_worker_processes_give_the_same_bits(data_dir: str):
    parallel = stream(data_dir, workers=2)
    try:
        assert same(batches(parallel, range(2, 9)), batches(stream(data_dir), range(2, 9)))
    finally:
        parallel.close()


def test_processes_share_a_batch_and_fill_only_their_rows(data_dir: str):
    whole = batches(stream(data_dir), range(3))
    for rows in (np.arange(4), np.arange(4, 8), np.array([1, 6])):
        mine = batches(stream(data_dir, rows), range(3))
        parts = [tuple(part[:, rows] for part in batch) for batch in whole]
        assert same([tuple(part[:, rows] for part in batch) for batch in mine], parts)


def test_batches_larger_than_memory_are_refused(data_dir: str):
    asked = {"data_dir": data_dir, "stream_batch": 256}
    datasets.check("colours", ["train"], **asked, image_size=224)
    with pytest.raises(InputError, match="256 images of 100000×100000 take 7,680 GB"):
        datasets.check("colours", ["train"], **asked, image_size=100_000)


def test_batch_of_one_of_many_hosts_holds_its_own_rows_alone(data_dir: str):
    opened = datasets.open_records("colours", "train", data_dir)
    read = []

    class Counted:
        name, class_names = opened.name, opened.class_names

        def __getitem__(self, index: int):
            read.append(index)
            return opened[index]

    order, rows = np.arange(20), np.array([5, 6])
    part = streaming.Batches(Counted(), lambda step: order, CROPS, rows, 1, "scale", 0)
    images, labels = part[0]
    assert images.shape == (2, 16, 16, 3)
    assert read == [5, 6]
    assert labels.tolist() == [opened[5].label, opened[6].label]


def test_picture_is_cropped_anew_in_each_epoch_and_for_each_seed(data_dir: str):
    opened = datasets.open_records("colours", "train", data_dir)
    index = next(i for i in range(NUM) if opened[i].name == "07.png")

    def crop(seed: int, place: int) -> bytes:
        order, rows = np.array([index]), np.arange(1)
        one = streaming.Batches(opened, lambda step: order, CROPS, rows, 5, "scale", seed)
        return one[place][0].tobytes()

    drawn = {(seed, place): crop(seed, place) for seed in range(3) for place in range(5)}
    assert len(set(drawn.values())) > 10
    assert crop(1, 4) == drawn[1, 4]


def test_evaluation_sees_the_centre_of_every_picture_once(data_dir: str):
    seen, found = [], stream(data_dir)
    opened = datasets.open_records("colours", "train", data_dir)
    for (images, labels), mask in found.evaluation_inputs(8):
        assert len(images) == len(labels) == len(mask) == 8
        for image, label in zip(images[mask], labels[mask], strict=True):
            record = opened[len(seen)]
            picture = image_ops.decode(record.encoded)
            crop = image_ops.centre_crop(*picture.shape[:2], CROPS)
            np.testing.assert_array_equal(image, image_ops.render(picture, crop, 16))
            assert label == record.label
            seen.append(label)
    assert len(seen) == NUM


def test_evaluation_in_the_middle_of_training_leaves_its_order_alone(data_dir: str):
    whole, interrupted = batches(stream(data_dir), range(6)), stream(data_dir)
    first = batches(interrupted, range(3))
    assert len(list(interrupted.evaluation_inputs(8))) == 3
    assert same(first + batches(interrupted, range(3, 6)), whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_picture_is_named_also_by_a_worker(tmp_path: Path, monkeypatch, workers: int):
    for i in range(4):
        folder = tmp_path / "tree" / "train" / f"class{i // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30)).save(folder / f"{i}.jpg")
    broken = tmp_path / "tree" / "train" / "class0" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:-20])
    monkeypatch.setattr(image_ops, "decode", lambda *_, **__: None)  # Else it were found already.
    folder_to_tfds.prepare("broken", str(tmp_path), str(tmp_path / "tree"))
    monkeypatch.undo()
    opened = datasets.open_records("broken", "train", str(tmp_path))
    data = streaming.Stream(
        opened,
        receiver(),
        augmentation="scale",
        crops=CROPS,
        rows=np.arange(4),
        num_workers=workers,
    )
    with pytest.raises(InputError, match=r"^dataset: 2\.jpg: unreadable image \(Premature end"):
        data.inputs(0, 0, 1, 4, after=None)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),  # of a queue's semaphore
        RuntimeError("Worker process was terminated unexpectedly with exit code -7. Search the …"),
    ],
)
def test_full_shared_memory_is_named(data_dir: str, monkeypatch, error: Exception):
    class Full:
        def __iter__(self):
            return self

        def __next__(self):
            raise error

        def close(self):
            pass

    monkeypatch.setattr(grain.IterDataset, "mp_prefetch", lambda *_, **__: Full())
    with pytest.raises(
        InputError, match=r"num_workers=2: /dev/shm is full, .*13 batches of 0\.0 MB"
    ):
        batches(stream(data_dir, workers=2), range(1))


@pytest.mark.slow
def test_worker_whose_batch_finds_no_room_in_shared_memory_is_told(data_dir: str, tmp_path: Path):
    alone = ["unshare", "--mount"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs a /dev/shm of its own")
    program = tmp_path / "fill.py"
    program.write_text(
        f"import sys; sys.path[:0] = {[str(REPOSITORY), str(Path(__file__).parent)]!r}\n"
        "import test_streaming\n"
        "if __name__ == '__main__':\n"
        f"    of = test_streaming.stream({data_dir!r}, workers=1)\n"
        "    test_streaming.batches(of, range(100))\n"
    )
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "
    shell = [*alone, "sh", "-c", f"{mount}{sys.executable} {program}"]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert "InputError: streaming.num_workers=1: /dev/shm is full" in done.stderr


def test_devices_see_normalised_floats_with_noise_in_training_alone(data_dir: str):
    images, labels = next(iter(stream(data_dir).evaluation_inputs(8)))[0]
    own = lambda arrays: arrays
    plain, same_labels = receiver(0.1).plain((images, labels))
    np.testing.assert_allclose(plain, (images / 255 - 0.25) / 0.5, atol=1e-5)
    np.testing.assert_array_equal(labels, same_labels)
    quiet, _ = receiver().augmented((images, labels), jax.random.key(0), 8, own)
    np.testing.assert_allclose(quiet, plain, atol=1e-6)
    noisy, _ = receiver(0.1).augmented((images, labels), jax.random.key(0), 8, own)
    shift = np.asarray(noisy - plain)
    assert np.abs(shift).max() > 0.01
    np.testing.assert_allclose(shift, shift[:, :1, :1] * np.ones_like(shift), atol=1e-6)


def test_noise_varies_as_the_colours_do():
    noise = np.asarray(device_dataset.pca_lighting(jax.random.key(0), 20_000, 0.1))[:, 0, 0]
    vectors = np.array(device_dataset.COLOR_VECTORS)
    wanted = vectors @ np.diag((0.1 * np.array(device_dataset.COLOR_VALUES)) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(noise.T), wanted, atol=0.03 * wanted.max())
    np.testing.assert_allclose(noise.mean(0), 0, atol=1e-3)


def test_constants_of_the_noise_are_those_of_photographs():
    pixels = [image_ops.decode(path.read_bytes())[::8, ::8].reshape(-1, 3) for path in sample()]
    _, vectors = np.linalg.eigh(np.cov(np.concatenate(pixels).T / 255))
    constants = np.array(device_dataset.COLOR_VECTORS)
    np.testing.assert_allclose(constants.T @ constants, np.eye(3), atol=1e-3)
    for found, constant in zip(vectors.T[::-1], constants.T, strict=True):
        assert abs(found @ constant) > 0.98


def test_statistics_are_of_the_centres(data_dir: str):
    opened = datasets.open_records("colours", "train", data_dir)
    centres = np.concatenate(
        [images[mask] for (images, _), mask in stream(data_dir).evaluation_inputs(8)]
    )
    mean, std = streaming.normalization(opened, CROPS, "channel", "channel")
    np.testing.assert_allclose(mean[0, 0], centres.mean((0, 1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(std, centres.std((0, 1, 2)) / 255, atol=1e-6)
    with pytest.raises(InputError, match=r"mean='pixel': allowed are channel, none, imagenet"):
        streaming.normalization(opened, CROPS, "pixel", "none")


def test_draws_are_the_same_on_every_machine():
    drawn = image_ops.crop_uniforms(0, 12345)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    wanted = [0.9897093100684645, 0.6432689120928675, 0.6280693462696633]
    np.testing.assert_array_equal(drawn[:3], wanted)


ORPHANS = """
import multiprocessing, sys, threading, time
sys.path[:0] = [{tests!r}, {repository!r}]
from test_streaming import stream

def report():
    while len(workers := multiprocessing.active_children()) < 2:
        time.sleep(0.001)
    print(*[worker.pid for worker in workers], flush=True)

def main():
    data = stream({data_dir!r}, workers=2)
    threading.Thread(target=report).start()
    data.inputs(0, 0, 1, 8, None)
    data.inputs(0, 1, 2, 8, None)
    print("two batches", flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    main()
"""


def test_workers_outlive_ctrl_c_but_not_their_parent(data_dir: str, tmp_path: Path):
    script = tmp_path / "parent.py"
    tests = str(Path(__file__).parent)
    script.write_text(ORPHANS.format(tests=tests, repository=str(REPOSITORY), data_dir=data_dir))
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert parent.stdout.readline() == "two batches\n"  # One of each worker.
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    assert all(Path(f"/proc/{pid}").exists() for pid in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
