"""Trains a config in a folder, from its last checkpoint if there is one."""

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import command
from resnet_jax import runs
from resnet_jax.errors import InputError, storage_failure
from resnet_jax.runs import lockfile, recipe
from resnet_jax.runtime import multihost
from resnet_jax.runtime.signals import StopSignals
from resnet_jax.training import warm_start

if TYPE_CHECKING:
    from resnet_jax.training.trainer import Experiment


def train(config: ConfigDict, workdir: Path) -> int:
    """Runs a config in a folder, from its last checkpoint if there is one; returns an exit code."""
    recipe.check(config)
    multihost.same_everywhere("config", config.to_json_best_effort().encode)
    if _is_complete(config, workdir):
        return 0
    with StopSignals() if multihost.size() == 1 else multihost.StopTogether() as stop:
        # Only now, because loading JAX and its libraries takes a second or two.
        from resnet_jax.training.trainer import build

        experiment = build(config)
        with _claimed(workdir):
            # Again, because another process may have trained there in the meantime.
            if _is_complete(config, workdir):
                return 0
            with _bugs_recorded(workdir):
                return _run(experiment, workdir, stop)


@contextlib.contextmanager
def _claimed(workdir: Path):
    """The first process claims the folder; the others make sure that theirs is the same one."""
    with contextlib.ExitStack() as stack:
        mark = multihost.from_first(lambda: stack.enter_context(lockfile.claim(workdir)))
        if not multihost.is_first():
            lockfile.check(workdir, mark)
        multihost.meet()
        yield


def _is_complete(config: ConfigDict, workdir: Path) -> bool:
    """Whether the folder holds this very run, finished; the first process looks, and says so."""
    complete = multihost.from_first(lambda: str(_holds_finished_run(config, workdir)))
    if complete == str(True) and multihost.is_first():
        print(f"{workdir}: complete already; nothing to do")
    return complete == str(True)


def _holds_finished_run(config: ConfigDict, workdir: Path) -> bool:
    run = runs.read_run(workdir)
    if run.status == "missing":
        _refuse_folder_of_runs(workdir)
        warm_start.check(config)  # A run that has begun has its own weights.
        return False
    # A torn line in metrics.jsonl is what a kill may leave: the log is mended when it is opened.
    damaged = [problem for problem in run.problems if not problem.startswith("metrics.jsonl")]
    if damaged:
        raise InputError(f"workdir={str(workdir)!r}: {damaged[0]}")
    changed = recipe.differences(run.config, runs.as_json(config.to_dict()))
    if changed:
        raise InputError(
            f"workdir={str(workdir)!r} holds a run of another config ({'; '.join(changed)}); "
            "choose another folder, or set these fields back"
        )
    return run.summary is not None


def _refuse_folder_of_runs(workdir: Path) -> None:
    """A run among the folders of others would enter their report, and a sweep's at that."""
    others = [run.name for run in runs.find_runs(workdir)] if workdir.is_dir() else []
    if others:
        raise InputError(
            f"workdir={str(workdir)!r} holds folders of runs ({', '.join(others[:3])}"
            f"{', …' * (len(others) > 3)}); give this one a folder of its own"
        )


def _run(experiment: "Experiment", workdir: Path, stop: StopSignals) -> int:
    from resnet_jax.runs.progress import Display
    from resnet_jax.training.checkpoints import Checkpoints

    config = experiment.config
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", config.max_to_keep))
        if checkpoints.steps:
            state = checkpoints.restore(experiment.state_template())
        else:
            state = experiment.initial_state()
            if config.init_from:
                checkpoints.save(state)  # From here on the other run may change or go.
        step = int(state.step)
        rows: list[runs.Row] = []
        outlets: list[Callable[[runs.Row], None]] = []
        if multihost.is_first():
            runs.write_config(
                workdir,
                config.to_dict(),
                devices=_devices(experiment),
                class_names=experiment.class_names,
            )
            metrics = stack.enter_context(runs.MetricsLog(workdir, step))
            display = stack.enter_context(Display(config.model.name, config.num_steps, step))
            rows, outlets = metrics.rows, [metrics.append, display.show]

        def log(row: runs.Row) -> None:
            for outlet in outlets:
                outlet(row)

        seconds = max((row.get("seconds", 0.0) for row in rows), default=0.0)
        state, status = experiment.train(state, checkpoints, log, stop.asked, seconds)
    if not multihost.is_first():
        return command.STOPPED if status == "stopped" else 0
    if status == "stopped":
        print(f"stopped at step {int(state.step)}, saved; the same command goes on")
        return command.STOPPED
    summary = _summary(experiment, rows, status, int(state.window.diverged_at))
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
    if multihost.is_first():
        (workdir / "error.txt").unlink(missing_ok=True)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # A full disk is no bug and has no room to tell of one. The first of several processes
        # knows the reason; the others, that they have lost it.
        if not storage_failure(error) and not (workdir / "error.txt").exists():
            runs.write_text(workdir / "error.txt", traceback.format_exc())
        raise
