"""A state comes back from disk bit for bit, or the reason why not is one line."""

import functools
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import WRONG_INPUT, InputError
from resnet_jax.models import zoo
from resnet_jax.training import schedules, state, step
from resnet_jax.training.checkpoints import Checkpoints, check_shapes, load_weights

SCHEDULE = schedules.Schedule("constant", 10, 0.1)


@functools.cache
def make(width=4, at=0):
    model = zoo.create("resnet-8", 3, width=width)
    made = state.create(jax.random.key(at), model, (8, 8, 3), step.sgd(), SCHEDULE)
    return made.replace(step=jnp.int32(at))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_state_comes_back_bit_for_bit(tmp_path):
    saved = make(at=5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(make()), saved)


def test_only_the_last_few_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for at in (1, 2, 3):
            checkpoints.save(make(at=at))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 3]
        assert_same(checkpoints.restore(make(), step=2), make(at=2))


def test_step_that_is_saved_already_is_not_saved_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(at=1))
        checkpoints.save(make(at=1))
        assert checkpoints.steps == [1]


def test_save_that_never_ends_ends_the_process_with_one_line(tmp_path):
    code = f"""
        import threading
        from resnet_jax.training.checkpoints import Checkpoints, check_shapes, load_weights
        with Checkpoints({str(tmp_path)!r}, save_timeout=2) as hanging:
            hanging._manager.wait_until_finished = threading.Event().wait
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    expected = f"error: {tmp_path}: a save has not ended in 2 s; rerun the command to resume\n"
    assert (ended.returncode, ended.stderr) == (WRONG_INPUT, expected)


@pytest.mark.weekly
def test_seconds_in_which_the_process_is_stopped_do_not_count(tmp_path):
    code = f"""
        import time
        from resnet_jax.training.checkpoints import Checkpoints, check_shapes, load_weights
        def save():
            print("saving", flush=True)
            for _ in range(6):
                time.sleep(0.5)
        with Checkpoints({str(tmp_path)!r}, save_timeout=8) as slow:
            slow._manager.wait_until_finished = save
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    time.sleep(10)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_unfinished_write_is_not_taken_for_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(at=1))
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [1]


def test_checkpoint_of_another_network_is_refused_in_one_line(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(at=1))
        with pytest.raises(InputError, match="not a checkpoint of this network") as raised:
            checkpoints.restore(make(width=8))
    assert "\n" not in str(raised.value)


def test_missing_checkpoints_are_named(tmp_path):
    with Checkpoints(tmp_path / "a") as checkpoints:
        with pytest.raises(InputError, match="no checkpoint"):
            checkpoints.restore(make())
        checkpoints.save(make(at=1))
        with pytest.raises(InputError, match=r"step=7: no such checkpoint; .* has \[1\]"):
            checkpoints.restore(make(), step=7)


def test_weights_of_a_run_that_diverged_are_refused(tmp_path):
    variables = make(at=1)
    bias = {"bias": jnp.full(3, jnp.nan)}
    diverged = variables.replace(
        params={**variables.params, "classifier": {**variables.params["classifier"], **bias}}
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(diverged)
    with pytest.raises(InputError, match=r"1: classifier.bias has values that are not finite"):
        load_weights(tmp_path)


def test_variable_that_the_network_lacks_is_named():
    scale = {"params": {"unit": {"scale": np.ones(3)}}}
    more = {"params": {"unit": {"scale": np.ones(3), "multiplier": np.ones(())}}}
    check_shapes(scale, scale)
    with pytest.raises(InputError, match=r"^unit\.multiplier is there, and nothing of that name"):
        check_shapes(more, scale)
    with pytest.raises(InputError, match=r"^unit\.multiplier is nothing there, here \[\]"):
        check_shapes(scale, more)
