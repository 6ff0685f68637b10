"""A run in its folder: begun or resumed, logged, checkpointed and summed up."""

import contextlib
import dataclasses
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_jax import runs
from resnet_jax.data import datasets
from resnet_jax.data.splits import SPLITS
from resnet_jax.errors import STOPPED, InputError, storage_failure
from resnet_jax.models.architecture import Architecture
from resnet_jax.runs import Recipe, load_recipe, lockfile
from resnet_jax.runs.recipe import differences
from resnet_jax.runtime import multihost

if TYPE_CHECKING:
    from resnet_jax.training.trainer import Experiment


_OF_TRAINING = frozenset(
    ("bn_group_size", "initialization", "zero_init_last", "gate_bias", "dropout_rate")
) | {"output_stride"}
"""Axes that change nothing in what given weights compute, or where they are."""


def train(recipe: Recipe, workdir: Path) -> int:
    """Trains in a folder, from its last checkpoint if there is one; returns an exit code.

    Raises:
      InputError: the data, the devices or the folder do not suit the recipe.
    """
    with multihost.StopSignals() if multihost.size() == 1 else multihost.StopTogether() as stop:
        if is_complete(recipe, workdir):
            return 0
        # Only now, because loading JAX and its libraries takes a second or two.
        from resnet_jax.training.trainer import build, kept_statistics, load_data

        # What weights have been trained on, they are trained on to the end.
        kept = kept_statistics(workdir) if runs.checkpoint_steps(workdir) else None
        experiment = build(recipe, load_data(recipe, kept))
        with _claimed(workdir):
            # Again, because another process may have trained there in the meantime.
            if is_complete(recipe, workdir):
                return 0
            with _bugs_recorded(workdir):
                return _run(experiment, workdir, stop)


def is_complete(recipe: Recipe, workdir: Path) -> bool:
    """Whether the folder holds this very run, finished; the first process looks, and says so.

    Loads no JAX.

    Raises:
      InputError: the data set or the folder does not suit the recipe.
    """
    multihost.same_everywhere("config", repr(recipe).encode)
    check_dataset(recipe)
    _check_loggers(recipe)
    complete = multihost.broadcast_from_host0(lambda: str(_holds_finished_run(recipe, workdir)))
    if complete == str(True) and multihost.is_first():
        print(f"{workdir}: complete already; nothing to do")
    return complete == str(True)


def check_dataset(recipe: Recipe, test_only: bool = False) -> None:
    """Raises `InputError` for a data set, split or folder that cannot be loaded; reads no image.

    With `test_only`, the other splits are not to be loaded.
    """
    dataset = recipe.dataset
    others = () if test_only else (dataset.train, dataset.validation)
    datasets.check(
        dataset.name,
        [split for split in (*others, dataset.test) if split],
        data_dir=dataset.data_dir,
        image_size=dataset.image_size,
        padding=dataset.crop_padding,
        stream_batch=recipe.batch_size if recipe.streaming else None,
    )


def _check_loggers(recipe: Recipe) -> None:
    """Loads none of their libraries, which takes a while."""
    if "wandb" in recipe.logger_names and importlib.util.find_spec("wandb") is None:
        raise InputError(
            f"loggers={recipe.loggers!r}: wandb is not installed; install it (pip install wandb) "
            "or leave it out"
        )


@contextlib.contextmanager
def _claimed(workdir: Path):
    """The first process claims the folder; the others make sure that theirs is the same one."""
    with contextlib.ExitStack() as stack:
        mark = multihost.broadcast_from_host0(lambda: stack.enter_context(lockfile.claim(workdir)))
        if not multihost.is_first():
            lockfile.check(workdir, mark)
        multihost.barrier()
        yield


def _holds_finished_run(recipe: Recipe, workdir: Path) -> bool:
    run = runs.read_run(workdir)
    # A torn line in metrics.jsonl is what a kill may leave: the log is mended when it is opened.
    damaged = [problem for problem in run.problems if not problem.startswith("metrics.jsonl")]
    if damaged:
        raise InputError(f"workdir={str(workdir)!r}: {damaged[0]}")
    if run.status == "missing":
        _refuse_folder_of_runs(workdir)
        _check_init_from(recipe)  # A run that has begun has its own weights.
        return False
    changed = differences(run.config, runs.as_json(recipe.to_dict()))
    if changed:
        raise InputError(
            f"workdir={str(workdir)!r} holds a run of another config ({'; '.join(changed)}); "
            "choose another folder, or set these fields back"
        )
    return run.summary is not None


def _check_init_from(recipe: Recipe) -> None:
    """Finds what is wrong with `recipe.init_from`, before anything slow."""
    if recipe.init_from is None:
        return
    folder = Path(recipe.init_from)
    try:
        start = load_recipe(folder)
        theirs, ours = start.architecture, recipe.architecture
        if not runs.checkpoint_steps(folder):
            raise InputError("no checkpoint in this folder")
        for field in dataclasses.fields(Architecture):
            there, here = getattr(theirs, field.name), getattr(ours, field.name)
            if there != here and field.name not in _OF_TRAINING:
                raise InputError(
                    f"a network of another architecture ({field.name}={there!r}, here {here!r})"
                )
        for name in ("mean", "std"):
            there, here = getattr(start.dataset, name), getattr(recipe.dataset, name)
            if there != here:
                raise InputError(
                    f"its images were normalised otherwise: set dataset.{name}={there}, not {here}"
                )
    except InputError as error:
        message = str(error).removeprefix(f"workdir={str(folder)!r}: ")
        raise InputError(f"init_from={str(folder)!r}: {message}") from error


def _refuse_folder_of_runs(workdir: Path) -> None:
    """A run among the folders of others would enter their report, and a sweep's at that."""
    others = [run.name for run in runs.find_runs(workdir)] if workdir.is_dir() else []
    if others:
        raise InputError(
            f"workdir={str(workdir)!r} holds folders of runs ({', '.join(others[:3])}"
            f"{', …' * (len(others) > 3)}); give this one a folder of its own"
        )


def _run(
    experiment: "Experiment", workdir: Path, stop: multihost.StopSignals | multihost.StopTogether
) -> int:
    from resnet_jax.runs.loggers import open_loggers
    from resnet_jax.runs.progress import Display
    from resnet_jax.training.checkpoints import Checkpoints

    recipe = experiment.recipe
    data = _same_data(recipe, workdir)
    with contextlib.ExitStack() as stack:
        # The first weights of such a run are no function of its seed: they stay.
        checkpoints = stack.enter_context(
            Checkpoints(
                workdir / "checkpoints",
                recipe.max_to_keep,
                keep_first=bool(recipe.init_from),
                save_timeout=recipe.save_timeout,
            )
        )
        # Another process may see an older listing of the folder.
        begun = bool(multihost.broadcast_from_host0(lambda: "resume" if checkpoints.steps else ""))
        if begun:
            state = checkpoints.restore(experiment.state_template())
        else:
            state = experiment.initial_state()
        step = int(state.step)
        # All ask, for the first one may refuse, and the others may have no step left to train.
        lost = multihost.broadcast_from_host0(lambda: _lost_log(experiment, workdir, step))
        rows: list[runs.Row] = []
        outlets: list[Callable[[runs.Row], None]] = []
        note: Callable[[str], None] = lambda line: None
        if multihost.is_first():
            _write_start(experiment, workdir, begun, data)
            metrics = stack.enter_context(runs.MetricsLog(workdir, step))
            copies = stack.enter_context(open_loggers(recipe.logger_names, workdir, step))
            alone = multihost.size() == 1
            display = Display(recipe.model.name, recipe.num_steps, step, live=alone)
            stack.enter_context(display)
            rows, note = metrics.rows, display.say
            outlets = [metrics.append, *(copy.write for copy in copies), display.show]
        notes = [lost, *recipe.notes(), *_notes_on_data(experiment)]
        if recipe.init_from and not begun:
            notes.append(_note_on_start(Path(recipe.init_from)))
            # After the config, without which no checkpoint is resumed from.
            checkpoints.save(state)  # From here on the other run may change or go.
        notes = [f"note: {line}" for line in notes if line]
        for line in (_describe_data(recipe), experiment.describe(state), *notes):
            note(line)

        def log(row: runs.Row) -> None:
            for outlet in outlets:
                outlet(row)

        seconds = max((row.get("seconds", 0.0) for row in rows), default=0.0)
        state, status = experiment.train(state, checkpoints, log, stop.asked, seconds, note)
    if status == "stopped":
        note(f"stopped at step {int(state.step)}, saved; rerun the command to resume")
        return STOPPED
    if multihost.is_first():
        summary = _summary(experiment, rows, status, int(state.window.diverged_at))
        runs.write_json(workdir / "summary.json", summary)
        note(_verdict(summary))
    return 0


def _write_start(
    experiment: "Experiment", workdir: Path, begun: bool, data: dict[str, Any]
) -> None:
    """What the folder says of a run before its first step, or its first since it is resumed."""
    from resnet_jax.training.trainer import STATISTICS

    recipe = experiment.recipe
    # Its weights are those of its beginning; the other run may have changed or gone since.
    begun_from = runs.read_run(workdir).info.get("init_from_id")
    if recipe.init_from and not begun:
        begun_from = runs.read_run(recipe.init_from).info.get("run_id")
    runs.write_config(
        workdir,
        recipe.to_dict(),
        devices=experiment.devices,
        class_names=experiment.class_names,
        data=data,
        init_from_id=begun_from,
        resumed=begun,
    )
    if not (begun and (workdir / STATISTICS).exists()):
        experiment.statistics.save(workdir / STATISTICS)


def _lost_log(experiment: "Experiment", workdir: Path, step: int) -> str:
    """What to say of a run that resumes at `step` without the last row of its log; else "".

    Raises:
      InputError: its final training error could not be computed, or it has no other final one.
    """
    recipe, path = experiment.recipe, workdir / "metrics.jsonl"
    if not step:
        last = max((row["step"] for row in runs.read_log(path)), default=0)
        if last < recipe.checkpoint_every:  # It ended before its first checkpoint.
            return ""
        return (
            f"{workdir / 'checkpoints'}: holds none after step 0, though the run had come to step "
            f"{last:,}; it begins anew"
        )
    logged = step if step == recipe.num_steps else step - step % recipe.log_every
    rows = {(row["split"], row["step"]) for row in runs.read_log(path, step)}
    if not logged:
        return ""
    if ("train", logged) in rows:
        unseen = [split for split in experiment.splits if (split, logged) not in rows]
        if step == recipe.num_steps and unseen:  # No step is left after which it is evaluated.
            raise InputError(
                f"{path}: the {unseen[0]} row of step {step} is missing, without which the run has "
                f"no final {unseen[0]} error; bring the file back, or remove "
                f"{workdir / 'checkpoints' / str(step)} to train its last steps again"
            )
        return ""
    lost = f"{path}: the row of step {logged} is missing"
    start = runs.last_epoch_start(recipe.num_steps, experiment.steps_per_epoch)
    if logged + recipe.log_every > start:  # The next row would count for the missing ones' steps.
        raise InputError(
            f"{lost}, without which the run's final training error cannot be computed; bring the "
            f"file back, or remove {workdir / 'checkpoints'} to train again"
        )
    return f"{lost}; the run's curves and time lack what it had logged"


def _same_data(recipe: Recipe, workdir: Path) -> dict[str, Any]:
    """The fingerprint of the run's data; raises `InputError` if the run began with other data."""
    dataset, kept = recipe.dataset, runs.read_run(workdir).info.get("data")
    used = [split for name in SPLITS if (split := getattr(dataset, name))]
    data = datasets.fingerprint(dataset.name, used, dataset.data_dir)
    difference = kept and datasets.compare_fingerprints(kept, data)
    if difference:
        raise InputError(
            f"workdir={str(workdir)!r} holds a run on other data ({difference}); choose another "
            "folder, or bring the images back"
        )
    return data


def _describe_data(recipe: Recipe) -> str:
    """What a run learns from, and what lies beside it and is left out."""
    dataset = recipe.dataset
    size = None if recipe.streaming else dataset.image_size
    info = datasets.describe(dataset.name, data_dir=dataset.data_dir, image_size=size)
    counts = ", ".join(f"{split} {count:,}" for split, count in info.num_examples.items())
    left_out = f"\nleft out: {info.left_out}" if info.left_out else ""
    return f"{dataset.name}: images: {counts}; {len(info.class_names)} classes{left_out}"


def _note_on_start(folder: Path) -> str:
    """What to say of a run that did not end and whose weights another begins with; else ""."""
    other = runs.read_run(folder)
    if other.status == "completed" or (other.config or {}).get("converted_from"):
        return ""
    state = "diverged" if other.status == "diverged" else "is not finished"
    return f"init_from={str(folder)!r}: that run {state}; this one begins with what it last saved"


def _notes_on_data(experiment: "Experiment") -> list[str]:
    """Lines on what works with these data, but is rarely meant."""
    count, recipe, lines = len(experiment.splits["train"]), experiment.recipe, []
    if count < recipe.batch_size:
        lines.append(
            f"each batch of batch_size={recipe.batch_size} holds the {count} training images "
            "more than once"
        )
    schedule, guessing = recipe.schedule, 1 - 1 / len(experiment.class_names)
    if schedule.warmup == "until_error" and schedule.warmup_error >= guessing:
        lines.append(
            f"schedule.warmup_error={schedule.warmup_error:g}: guessing among "
            f"{len(experiment.class_names)} classes has an error of {guessing:.2g}, so that the "
            f"warm-up ends at once; what v1's .8 of .9 would be: {guessing * 0.8 / 0.9:.2g}"
        )
    return lines


def _summary(experiment: "Experiment", rows: list[runs.Row], status: str, diverged_at: int) -> dict:
    recipe, count = experiment.recipe, experiment.count()
    last = {row["split"]: row for row in rows if row["step"] == recipe.num_steps}
    test, validation = last.get("test", {}), last.get("validation", {})
    return {
        "format": runs.FORMAT,
        "status": status,
        "model": recipe.model.name,
        "dataset": recipe.dataset.name,
        "seed": recipe.seed,
        **count._asdict(),
        "num_steps": rows[-1]["step"],
        "diverged_at": diverged_at if status == "diverged" else None,
        **runs.final_training_metrics(rows, experiment.steps_per_epoch),
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
