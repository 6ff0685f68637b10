"""One process at a time writes to a folder."""

import errno
import os
import subprocess
import sys
import threading
from concurrent import futures

import pytest

from resnet_jax.errors import InputError
from resnet_jax.runs import lockfile


def test_claimed_folder_refuses_a_second_process(tmp_path):
    code = (
        "import sys, pathlib; from resnet_jax.runs import lockfile\n"
        "with lockfile.claim(pathlib.Path(sys.argv[1])): print('claimed')"
    )
    second = [sys.executable, "-c", code, str(tmp_path)]
    with lockfile.claim(tmp_path):
        refused = subprocess.run(second, capture_output=True, text=True)
    assert "another process is training there" in refused.stderr
    assert subprocess.run(second, capture_output=True, text=True).stdout == "claimed\n"


def test_one_at_a_time_has_its_turn_and_no_file_is_left(tmp_path, monkeypatch):
    path, order = tmp_path / "new" / ".lock", []
    inside, waits = threading.Event(), threading.Event()
    monkeypatch.setattr("builtins.print", lambda *_, **__: waits.set())

    def second():
        inside.wait(timeout=60)
        with lockfile.turn(path, "waiting"):
            order.append("second")

    with futures.ThreadPoolExecutor() as pool:
        with lockfile.turn(path, "waiting"):
            other = pool.submit(second)
            inside.set()
            assert waits.wait(timeout=60)
            order.append("first")
        other.result()
    assert order == ["first", "second"]
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_one_line(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(lockfile.fcntl, "flock", flock)
    line = (
        f"^workdir='{tmp_path}': its file system cannot lock files \\({os.strerror(number)}\\); .*$"
    )
    with pytest.raises(InputError, match=line), lockfile.claim(tmp_path):
        pass
    with pytest.raises(InputError, match=line):
        lockfile.is_claimed(tmp_path)
