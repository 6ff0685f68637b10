"""Learning rates are the papers'."""

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.errors import InputError
from resnet_jax.training.schedules import Schedule


def rates(schedule, steps):
    state = schedule.init()
    return [float(schedule.rate(state, step)) for step in steps]


def test_rate_drops_tenfold_at_32k_and_48k_of_64k():
    for boundaries in ((0.5, 0.75), (32_000, 48_000)):
        schedule = Schedule("steps", 64_000, 0.1, boundaries)
        steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
        np.testing.assert_allclose(
            rates(schedule, steps), [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5
        )


def test_fractions_keep_the_shape_of_a_shortened_schedule():
    schedule = Schedule("steps", 200, 0.1, (0.5, 0.75))
    np.testing.assert_allclose(rates(schedule, [99, 100, 150]), [0.1, 0.01, 0.001], rtol=1e-5)


def test_boundaries_that_fall_on_one_step_both_drop_the_rate():
    for boundaries in ((1, 1), (0.4, 0.6)):
        schedule = Schedule("steps", 2, 0.1, boundaries)
        np.testing.assert_allclose(rates(schedule, [0, 1]), [0.1, 0.001], rtol=1e-5)


def test_cosine_ends_at_zero():
    schedule = Schedule("cosine", 100, 0.2)
    np.testing.assert_allclose(rates(schedule, [0, 50, 100]), [0.2, 0.1, 0.0], atol=1e-7)


def test_linear_warmup_reaches_the_full_rate():
    schedule = Schedule("constant", 100, 0.1, warmup="linear", warmup_steps=4)
    np.testing.assert_allclose(rates(schedule, range(5)), [0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-6)


def test_constant_warmup_lasts_its_steps():
    schedule = Schedule("constant", 1000, 0.1, warmup="constant", warmup_steps=400)
    np.testing.assert_allclose(rates(schedule, [0, 399, 400]), [0.01, 0.01, 0.1], rtol=1e-6)


def train(schedule, errors):
    state, seen = schedule.init(), []
    for step, error in enumerate(errors):
        seen.append(float(schedule.rate(state, step)))
        state = schedule.after_step(state, jnp.float32(error))
    return np.array(seen)


def test_warmup_by_error_really_ends_and_does_not_come_back():
    schedule = Schedule("constant", 1000, 0.1, warmup="until_error")
    seen = train(schedule, [0.9] * 100 + [0.6] * 100 + [0.95] * 200)
    np.testing.assert_allclose(seen[:100], 0.01, rtol=1e-6)
    np.testing.assert_allclose(seen[199:], 0.1, rtol=1e-6)


def test_net_that_never_gets_below_the_error_drops_its_rate_all_the_same():
    schedule = Schedule("steps", 100, 0.1, (0.5, 0.75), warmup="until_error")
    seen = train(schedule, [0.9] * 100)
    np.testing.assert_allclose(seen[[0, 60, 90]], [0.01, 0.01, 0.001], rtol=1e-5)


def test_one_lucky_batch_does_not_end_the_warmup():
    schedule = Schedule("constant", 1000, 0.1, warmup="until_error")
    np.testing.assert_allclose(train(schedule, [0.9] * 50 + [0.5] + [0.9] * 50), 0.01, rtol=1e-6)


def test_plateau_divides_the_rate_when_the_validation_error_stalls():
    schedule = Schedule("plateau", 1000, 0.1, patience=2)
    state, seen = schedule.init(), []
    for error in [0.5, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.2]:
        state = schedule.after_validation(state, error)
        seen.append(float(schedule.rate(state, 0)))
    np.testing.assert_allclose(seen, [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_other_schedules_do_not_listen_to_the_validation_error():
    schedule = Schedule("constant", 10, 0.1, patience=1)
    state = schedule.init()
    for _ in range(5):
        state = schedule.after_validation(state, 0.5)
    assert float(schedule.rate(state, 0)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "step"}, "name='step'.*nearest: steps"),
        ({"warmup": "until-error"}, "nearest: until_error"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be above 0"),
        ({"boundaries": (1.5,)}, "1.5 is neither a step"),
        ({"boundaries": (0,)}, "0 is neither a step"),
        ({"boundaries": (5, 10)}, "step 10 is not within num_steps=10"),
        ({"warmup": "linear"}, "warmup_steps=0"),
    ],
)
def test_wrong_schedule_says_what_is_allowed(fields, message):
    with pytest.raises(InputError, match=message):
        Schedule(**{"name": "steps", "num_steps": 10, "learning_rate": 0.1, **fields})


def test_warm_up_that_does_not_end_is_known_after_a_tenth_of_the_run():
    schedule = Schedule("steps", 1000, 0.1, (0.5, 0.75), warmup="until_error")
    failing = schedule.after_step(schedule.init(), jnp.float32(0.9))
    assert not schedule.warms_up_late(failing, 99)
    assert schedule.warms_up_late(failing, 100)
    for _ in range(100):
        learning = schedule.after_step(failing, jnp.float32(0.1))
        failing = learning
    assert not schedule.warms_up_late(learning, 100)
