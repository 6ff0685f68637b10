"""Calls end where something is due, whatever interrupts; figures survive a stop."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from configs import digits
from resnet_jax import runs
from resnet_jax.runs import Recipe
from resnet_jax.runtime import cpu
from resnet_jax.training import trainer
from resnet_jax.training.state import NOT_DIVERGED, MetricAccumulator, TrainState

INTERVALS = trainer.Intervals(
    num_steps=23, log_every=5, evaluate_every=10, checkpoint_every=7, steps_per_call=4
)


def fresh(step=0):
    return TrainState(jnp.int32(step), {}, {}, (), None, MetricAccumulator.empty())


class Recorder:
    """A fit whose steps count, with what happened and when."""

    def __init__(self, bad_step=None, stop_at=None):
        self.bad_step, self.stop_at = bad_step, stop_at
        self.events, self.rows, self.calls, self.saved = [], [], [], []
        self.step = 0

    def run_steps(self, state, start, end):
        self.calls.append((start, end))
        for step in range(start, end):
            loss = jnp.nan if step == self.bad_step else float(step)
            metrics = dict.fromkeys(("error", "gradient_norm", "learning_rate"), jnp.float32(0.5))
            state = state.replace(
                step=state.step + 1,
                window=state.window.add(step, {"loss": jnp.float32(loss), **metrics}),
            )
        self.step = end
        return state

    def log(self, row):
        self.events.append(("log", row["step"]))
        self.rows.append(row)

    def evaluate(self, state, step):
        self.events.append(("evaluate", step))
        return state

    def save(self, state):
        self.events.append(("save", int(state.step)))
        self.saved.append(state)

    def fit(self, state=None, intervals=INTERVALS):
        return trainer.fit(
            state or fresh(),
            intervals,
            run_steps=self.run_steps,
            evaluate=self.evaluate,
            save=self.save,
            log=self.log,
            should_stop=lambda: self.stop_at is not None and self.step >= self.stop_at,
            batch_size=2,
        )


def test_everything_happens_when_due_and_at_the_end():
    recorder = Recorder()
    state, status = recorder.fit()
    assert (status, int(state.step)) == ("completed", 23)
    at = lambda kind: [step for event, step in recorder.events if event == kind]
    assert at("log") == [5, 10, 15, 20, 23]
    assert at("evaluate") == [10, 20, 23]
    assert at("save") == [7, 14, 21, 23]


def test_order_at_one_step_is_log_evaluate_save():
    recorder = Recorder()
    recorder.fit()
    assert [event for event, step in recorder.events if step == 23] == ["log", "evaluate", "save"]


def test_calls_are_no_longer_than_allowed_and_leave_no_gap():
    recorder = Recorder()
    recorder.fit()
    assert all(0 < end - start <= 4 for start, end in recorder.calls)
    assert [start for start, _ in recorder.calls[1:]] == [end for _, end in recorder.calls[:-1]]


@pytest.mark.parametrize("stop_at", [1, 6, 9, 20])
def test_stopped_run_continues_with_the_same_calls_and_rows(stop_at):
    whole = Recorder()
    whole.fit()
    first, second = Recorder(stop_at=stop_at), Recorder()
    state, status = first.fit()
    assert status == "stopped"
    assert int(first.saved[-1].step) == int(state.step)
    second.fit(first.saved[-1])
    assert first.calls + second.calls == whole.calls
    figures = lambda row: {
        k: v for k, v in row.items() if k not in ("seconds", "images_per_second")
    }
    assert [figures(r) for r in first.rows + second.rows] == [figures(r) for r in whole.rows]


def test_rows_are_means_over_the_steps_since_the_last():
    recorder = Recorder()
    recorder.fit()
    assert [row["loss"] for row in recorder.rows] == [2.0, 7.0, 12.0, 17.0, 21.0]
    assert recorder.rows[0]["error"] == 0.5


def test_loss_that_is_not_finite_ends_the_run_at_its_first_step():
    recorder = Recorder(bad_step=11)
    state, status = recorder.fit()
    assert status == "diverged"
    assert int(state.window.diverged_at) == 12
    assert recorder.rows[-1]["step"] == 15


def test_finite_losses_are_not_divergence():
    state, _ = Recorder().fit()
    assert int(state.window.diverged_at) == NOT_DIVERGED


def test_run_asked_to_stop_before_its_first_step_makes_none():
    recorder = Recorder(stop_at=0)
    assert recorder.fit()[1] == "stopped"
    assert recorder.calls == []


def test_gradient_that_is_not_finite_is_divergence():
    metrics = dict.fromkeys(("loss", "error", "learning_rate"), jnp.float32(1))
    window = MetricAccumulator.empty().add(6, {**metrics, "gradient_norm": jnp.float32("inf")})
    assert int(window.diverged_at) == 7


def test_run_asked_to_stop_at_its_last_step_is_complete():
    assert Recorder(stop_at=23).fit()[1] == "completed"


def test_one_dispatch_of_many_steps_ends_where_the_calendar_does():
    intervals = dataclasses.replace(INTERVALS, steps_per_call=100)
    recorder = Recorder()
    recorder.fit(intervals=intervals)
    assert recorder.calls[:3] == [(0, 5), (5, 7), (7, 10)]


def test_clock_leaves_out_compilation_and_evaluation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now[0])

    class Slow(Recorder):
        def run_steps(self, state, start, end):
            now[0] += 100 if start == 0 else 1  # The first call compiles.
            return super().run_steps(state, start, end)

        def evaluate(self, state, step):
            now[0] += 1000
            return state

    recorder = Slow()
    intervals = trainer.Intervals(
        8, log_every=4, evaluate_every=4, checkpoint_every=8, steps_per_call=1
    )
    recorder.fit(intervals=intervals)
    assert [row["images_per_second"] for row in recorder.rows] == [2.0, 2.0]
    assert recorder.rows[-1]["seconds"] == 1107


@pytest.mark.parametrize("log_every", [5, 10, 60, 100])
def test_final_training_figures_do_not_depend_on_how_seldom_is_logged(log_every):
    config = digits.get_config(f"plain-8,model.width=2,num_steps=100,log_every={log_every}")
    intervals = trainer.build(Recipe.from_config(config)).intervals()
    recorder = Recorder()
    recorder.fit(intervals=intervals)
    figures = runs.final_training_metrics(recorder.rows, steps_per_epoch=391)
    assert figures["train_loss"] == sum(range(90, 100)) / 10


def test_jax_is_not_asked_for_figures_between_rows():
    intervals = trainer.Intervals(
        6, log_every=6, evaluate_every=6, checkpoint_every=6, steps_per_call=1
    )
    recorder = Recorder()
    fetched = []
    original = jax.device_get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer.jax, "device_get", lambda x: fetched.append(recorder.step) or original(x)
        )
        recorder.fit(intervals=intervals)
    assert fetched == [6]


@pytest.mark.parametrize(
    ("num_devices", "engine", "sharing"), [(1, "jit", 1), (2, "jit", 2), (2, "pmap", 1)]
)
def test_gradients_are_split_for_the_devices_that_share_a_batch(
    num_devices, engine, sharing, monkeypatch
):
    seen = set()
    note = lambda x, out: seen.add(cpu._sharing.get()) or 1
    monkeypatch.setattr(cpu, "_num_parts", note)
    config = digits.get_config("plain-8,dataset.train=train[:200],dataset.test=test[:100]")
    config.num_devices, config.parallel = num_devices, engine
    experiment = trainer.build(Recipe.from_config(config))
    experiment.make_run_steps().lower(experiment.initial_state(), experiment.splits["train"], 0, 1)
    assert seen == {sharing}
