"""A disk that is full or cannot be written is told apart from a bug."""

import errno
from pathlib import Path

import numpy as np
import pytest
from matplotlib import figure

from resnet_jax.errors import storage_failure


def raised_from(cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except type(cause) as error:
            raise RuntimeError("saving failed") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "", "a/metrics.jsonl"), "a/metrics.jsonl: No space left on device"),
        (OSError(errno.EROFS, ""), "a file to be written: Read-only file system"),
        (raised_from(PermissionError(errno.EACCES, "", "data")), "data: Permission denied"),
        (  # as TensorStore says it of a file that it writes
            ValueError(
                'UNKNOWN: Error writing local file "/r/4.orbax-x/d": No [OS error 28: ENOSPC]'
            ),
            "/r/4: No space left on device",
        ),
        (  # and of a folder that it makes
            ValueError("PERMISSION_DENIED: Failed to create directory [os_error_code='30']"),
            "a file to be written: Read-only file system",
        ),
    ],
)
def test_failure_of_the_disk_is_one_line_with_the_file(error, line):
    assert storage_failure(error) == f"{line}; fix that and rerun the command"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("x"),
        lambda path: path.write_bytes(b"x"),
        lambda path: np.savez(path.open("wb"), x=1),
        lambda path: figure.Figure().savefig(path, format="svg"),
    ],
)
def test_file_is_named_when_the_disk_fills_while_it_is_written(write):
    with pytest.raises(OSError, match="No space left") as caught:
        write(Path("/dev/full"))
    assert caught.value.filename is None
    assert storage_failure(caught.value).startswith("/dev/full: No space left on device")


def test_folder_that_no_file_system_makes_is_no_bug():
    with pytest.raises(FileNotFoundError) as caught:
        Path("/proc/folder").mkdir(parents=True)
    assert storage_failure(caught.value).startswith("/proc/folder: No such file or directory")
    with pytest.raises(FileNotFoundError) as caught:
        Path("/proc/file").read_bytes()
    assert storage_failure(caught.value) is None


def raised_while_handling(handled: Exception) -> Exception:
    try:
        try:
            raise handled
        except type(handled):
            {}["x"]  # a bug of the handler
    except KeyError as error:
        return error


def test_full_disk_is_told_by_an_error_of_cleaning_up_after_it():
    error = raised_while_handling(OSError(errno.ENOSPC, "", "a"))
    assert storage_failure(error).startswith("a: No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        raised_while_handling(FileExistsError(errno.EEXIST, "", "a")),
        raised_while_handling(NotADirectoryError(errno.ENOTDIR, "", "a")),
        FileNotFoundError(errno.ENOENT, "", "a"),
        raised_from(ValueError("shapes differ")),
        ValueError("[OS error 9: EBADF]"),
        None,
    ],
)
def test_anything_else_is_a_bug(error):
    assert storage_failure(error) is None
