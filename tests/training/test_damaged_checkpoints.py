"""A checkpoint that was damaged is passed over for the one before, and never taken for whole."""

import errno
import functools
import json
import os
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import InputError, os_error_number, storage_failure
from resnet_jax.models import zoo
from resnet_jax.runtime import multihost
from resnet_jax.training import checkpoints as module
from resnet_jax.training import schedules, state, step
from resnet_jax.training.checkpoints import Checkpoints, load_weights

SCHEDULE = schedules.Schedule("constant", 10, 0.1)


@functools.cache
def make(width=4, at=0):
    model = zoo.create("resnet-8", 3, width=width)
    made = state.create(jax.random.key(at), model, (8, 8, 3), step.sgd(), SCHEDULE)
    return made.replace(step=jnp.int32(at))


@pytest.fixture(scope="module")
def states():
    return {at: make(at=at) for at in (1, 2, 3)}


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory, keep=3) as checkpoints:
        for at in (1, 2, 3):
            checkpoints.save(states[at])
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def largest_file(checkpoint: Path) -> Path:
    """The one with the parameters."""
    return max(checkpoint.rglob("d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(checkpoint: Path) -> None:
    file = largest_file(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(checkpoint: Path) -> None:
    file = largest_file(checkpoint)
    os.truncate(file, file.stat().st_size // 2)


def zero(checkpoint: Path) -> None:
    file = largest_file(checkpoint)
    file.write_bytes(bytes(file.stat().st_size))


def empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def edit(checkpoint: Path, **record) -> None:
    path = checkpoint / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": record}))


DAMAGES = {
    "bit flipped": flip_a_bit,
    "file truncated": truncate,
    "file zeroed": zero,
    "file deleted": lambda checkpoint: largest_file(checkpoint).unlink(),
    "index deleted": lambda checkpoint: (checkpoint / "default/manifest.ocdbt").unlink(),
    "shapes deleted": lambda checkpoint: (checkpoint / "default/_METADATA").unlink(),
    "record deleted": lambda checkpoint: (checkpoint / "_CHECKPOINT_METADATA").unlink(),
    "folder emptied": empty,
}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_one_before_takes_the_place_of_a_damaged_one(damage, directory, states, caplog, capfd):
    damage(directory / "3")
    with Checkpoints(directory, keep=3) as checkpoints:
        assert_same(checkpoints.restore(make()), states[2])
        checkpoints.save(states[3])  # Nothing is in the way when training comes there again.
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"{directory / '3'}, now 3.damaged, is damaged" in warning
    assert "\n" not in warning
    assert "Traceback" not in capfd.readouterr().err
    with Checkpoints(directory, keep=3) as checkpoints:
        assert checkpoints.steps == [1, 2, 3]
        assert_same(checkpoints.restore(make()), states[3])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_reader_of_weights_passes_a_damaged_one_over_and_changes_nothing(
    damage, directory, states, caplog, capfd
):
    damage(directory / "3")
    before = contents(directory)
    weights = load_weights(directory)
    assert weights.step == 2
    assert_same(weights.variables["params"], states[2].params)
    assert contents(directory) == before
    assert "is damaged" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_same_checkpoint_damaged_twice_is_kept_twice(directory, states):
    for _ in range(2):
        truncate(directory / "3")
        with Checkpoints(directory, keep=3) as checkpoints:
            checkpoints.restore(make())
            checkpoints.save(states[3])
    assert {"3.damaged", "3.damaged-2"} <= {path.name for path in directory.iterdir()}


def test_several_damaged_ones_are_passed_over(directory, states):
    truncate(directory / "2")
    truncate(directory / "3")
    with Checkpoints(directory) as checkpoints:
        assert_same(checkpoints.restore(make()), states[1])


def test_when_none_is_whole_nothing_is_changed_and_the_message_says_what_to_do(directory):
    for at in ("1", "2", "3"):
        truncate(directory / at)
    before = contents(directory)
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(InputError, match=f"3: damaged .*delete {directory} to start over") as raised,
    ):
        checkpoints.restore(make())
    assert "\n" not in str(raised.value)
    assert contents(directory) == before


def test_damaged_step_that_was_asked_for_is_not_replaced_by_another(directory):
    truncate(directory / "3")
    with pytest.raises(InputError, match="3: damaged"):
        load_weights(directory, step=3)
    assert load_weights(directory, step=2).step == 2


def test_checkpoint_of_another_network_is_no_damage(directory):
    before = contents(directory)
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(InputError, match=r"not a checkpoint of this network.*wanted \(") as raised,
    ):
        checkpoints.restore(make(width=8))
    assert "damaged" not in str(raised.value)
    assert contents(directory) == before


def test_format_of_a_newer_version_is_refused(directory):
    edit(directory / "3", format=2)
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(InputError, match="format 2 is newer than this version reads"),
    ):
        checkpoints.restore(make())


def test_checkpoint_of_an_earlier_version_without_a_digest_is_read(directory, states):
    edit(directory / "3")
    with Checkpoints(directory) as checkpoints:
        assert_same(checkpoints.restore(make()), states[3])


@pytest.fixture
def told_by_first(monkeypatch):
    """This process is the second, and the first one says that it sees these steps."""

    def tell(*steps: int) -> None:
        said = iter([*map(str, steps), ""])
        monkeypatch.setattr(multihost, "_number", 1)
        monkeypatch.setattr(multihost, "broadcast_from_host0", lambda ask: next(said))

    return tell


def test_process_that_sees_an_older_listing_restores_what_the_first_one_does(
    directory, states, told_by_first, monkeypatch
):
    told_by_first(3, 2, 1)
    unseen = (directory / "3").rename(directory.parent / "3")
    wait, sleep = 0.25, time.sleep  # Other threads sleep, too, for other times.
    monkeypatch.setattr(module, "RETRY_SECONDS", (wait,))
    appear = lambda seconds: unseen.rename(directory / "3") if seconds == wait else sleep(seconds)
    monkeypatch.setattr(module.time, "sleep", appear)
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.steps == [1, 2]
        assert_same(checkpoints.restore(make()), states[3])


def test_process_that_never_sees_the_checkpoint_says_so_and_takes_no_other(
    directory, told_by_first, monkeypatch
):
    told_by_first(3, 2, 1)
    shutil.rmtree(directory / "3")
    monkeypatch.setattr(module, "RETRY_SECONDS", ())
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(InputError, match=f"{directory / '3'}: not there, where process 0 has it"),
    ):
        checkpoints.restore(make())
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]


def test_missing_commit_markers_do_not_matter_where_all_else_is_whole(directory, states):
    for marker in (directory / "3").rglob("commit_success.txt"):
        marker.unlink()
    with Checkpoints(directory) as checkpoints:
        assert_same(checkpoints.restore(make()), states[3])


def test_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match="checkpoints: not a folder"):
        Checkpoints(tmp_path / "checkpoints")


def test_reading_makes_no_folder(tmp_path):
    with pytest.raises(InputError, match="no checkpoint in this folder"):
        load_weights(tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


# As Python says it of a file that it opens, and TensorStore of one that it reads.
UNREADABLE = [
    OSError(errno.EIO, os.strerror(errno.EIO), "_CHECKPOINT_METADATA"),
    ValueError("Error reading local file \"/r/3/default/d/a\": Failed [os_error_code='116']"),
]


@pytest.fixture
def unreadable(monkeypatch):
    """Makes reading a checkpoint fail so many times."""
    monkeypatch.setattr(module, "RETRY_SECONDS", (0, 0, 0))

    def fail(error: Exception, times: int) -> None:
        errors, read = [error] * times, module._record
        monkeypatch.setattr(module, "_record", lambda folder: _raise_next(errors) or read(folder))

    return fail


def _raise_next(errors: list[Exception]) -> None:
    if errors:
        raise errors.pop()


@pytest.mark.parametrize("error", UNREADABLE, ids=str)
def test_disk_that_fails_for_a_moment_is_no_damage(error, unreadable, directory, states, caplog):
    before = contents(directory)
    unreadable(error, times=3)
    with Checkpoints(directory) as checkpoints:
        assert_same(checkpoints.restore(make()), states[3])
    assert contents(directory) == before
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("error", UNREADABLE, ids=str)
def test_disk_that_keeps_failing_is_told_and_nothing_is_renamed(error, unreadable, directory):
    before = contents(directory)
    unreadable(error, times=99)
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(OSError, match=os.strerror(os_error_number(error))) as raised,
    ):
        checkpoints.restore(make())
    assert storage_failure(raised.value).startswith(f"{directory / '3'}: ")
    assert contents(directory) == before
