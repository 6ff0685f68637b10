"""Trains a config in a folder, from its last checkpoint if there is one."""

import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import command, configuration
from experiments.interruption import StopSignals
from resnet_jax import runs
from resnet_jax.errors import InputError

if TYPE_CHECKING:
    from experiments.experiment import Experiment


def train(config: ConfigDict, workdir: Path) -> int:
    """Runs a config in a folder, from its last checkpoint if there is one; returns an exit code."""
    configuration.check(config)
    if _is_complete(config, workdir):
        print(f"{workdir}: complete already; nothing to do")
        return 0
    with StopSignals() as stop:
        # Only now, because loading JAX and its libraries takes a second or two.
        from experiments.experiment import build

        experiment = build(config)
        with runs.claim(workdir):
            # Again, because another process may have trained there in the meantime.
            if _is_complete(config, workdir):
                print(f"{workdir}: complete already; nothing to do")
                return 0
            with _bugs_recorded(workdir):
                return _run(experiment, workdir, stop)


def _is_complete(config: ConfigDict, workdir: Path) -> bool:
    """Whether the folder holds this very run, finished."""
    run = runs.read_run(workdir)
    if run.status == "missing":
        return False
    # A torn line in metrics.jsonl is what a kill may leave: the log is mended when it is opened.
    damaged = [problem for problem in run.problems if not problem.startswith("metrics.jsonl")]
    if damaged:
        raise InputError(f"workdir={str(workdir)!r}: {damaged[0]}")
    changed = configuration.differences(run.config, runs.as_json(config.to_dict()))
    if changed:
        raise InputError(
            f"workdir={str(workdir)!r} holds a run of another config ({'; '.join(changed)}); "
            "choose another folder, or set these fields back"
        )
    return run.summary is not None


def _run(experiment: "Experiment", workdir: Path, stop: StopSignals) -> int:
    from experiments.display import Display
    from resnet_jax.training.checkpoints import Checkpoints

    config = experiment.config
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", config.keep_checkpoints)
        )
        if checkpoints.steps:
            state = checkpoints.restore(experiment.state_template())
        else:
            state = experiment.initial_state()
        step = int(state.step)
        runs.write_config(workdir, config.to_dict(), devices=_devices(experiment))
        metrics = stack.enter_context(runs.MetricsLog(workdir, step))
        display = stack.enter_context(Display(config.model.name, config.num_steps, step))

        def log(row: runs.Row) -> None:
            metrics.append(row)
            display.show(row)

        seconds = max((row.get("seconds", 0.0) for row in metrics.rows), default=0.0)
        state, status = experiment.train(state, checkpoints, log, stop.asked, seconds)
    if status == "stopped":
        print(f"stopped at step {int(state.step)}, saved; the same command goes on")
        return command.STOPPED
    summary = _summary(experiment, metrics.rows, status, int(state.window.diverged_at))
    runs.write_json(workdir / "summary.json", summary)
    print(_verdict(summary))
    return 0


def _summary(experiment: "Experiment", rows: list[runs.Row], status: str, diverged_at: int) -> dict:
    config, count = experiment.config, experiment.count()
    last = {row["split"]: row for row in rows if row["step"] == config.num_steps}
    test, validation = last.get("test", {}), last.get("validation", {})
    return {
        "format": runs.FORMAT,
        "status": status,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        **count._asdict(),
        "num_steps": rows[-1]["step"],
        "diverged_at": diverged_at if status == "diverged" else None,
        **runs.final_training_figures(rows, experiment.steps_per_epoch),
        "test_loss": test.get("loss"),
        "test_error": test.get("error"),
        "validation_loss": validation.get("loss"),
        "validation_error": validation.get("error"),
        "wall_seconds": max(row.get("seconds", 0.0) for row in rows),
    }


def _verdict(summary: dict) -> str:
    if summary["status"] == "diverged":
        return f"{summary['model']}: diverged at step {summary['diverged_at']}"
    errors = [
        f"{split} error {100 * summary[field]:.2f}%"
        for split, field in (
            ("training", "train_error"),
            ("validation", "validation_error"),
            ("test", "test_error"),
        )
        if summary[field] is not None
    ]
    return (
        f"{summary['model']}: {', '.join(errors)} after {summary['num_steps']} steps "
        f"({summary['wall_seconds']:.0f} s)"
    )


def _devices(experiment: "Experiment") -> str:
    devices = experiment.mesh.devices.ravel()
    return f"{devices.size} x {devices[0].device_kind}"


@contextlib.contextmanager
def _bugs_recorded(workdir: Path):
    """A bug's traceback stays in the folder, so that it is never taken for a result."""
    (workdir / "error.txt").unlink(missing_ok=True)
    try:
        yield
    except InputError:
        raise
    except Exception:
        runs.write_text(workdir / "error.txt", traceback.format_exc())
        raise
