"""One process at a time writes to a folder."""

import subprocess
import sys

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
