"""Run folders as the training leaves them, written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.reporting import Report, write_report

PARAMETERS = {20: 269_722, 32: 464_154, 56: 853_018, 110: 1_727_962}


def write_run(
    folder: Path,
    model: str = "plain-20",
    seed: int = 0,
    train_error: float = 0.01,
    test_error: float | None = 0.02,
    *,
    dataset: str = "digits",
    status: str | None = "completed",
    steps: int = 300,
    name: str | None = None,
    **overrides: Any,
) -> Path:
    """Writes `folder/<model>-seed<seed>`; `status=None` leaves the run without a summary.

    `overrides` are fields of the config's `model` section.
    """
    path = folder / (name or f"{model}-seed{seed}")
    path.mkdir(parents=True)
    config = {
        "model": {"name": model, "bn_group_size": 64, **overrides},
        "dataset": {"name": dataset},
        "seed": seed,
        "num_steps": steps,
        "batch_size": 128,
        "schedule": {"name": "steps", "learning_rate": 0.1, "boundaries": [0.5, 0.75]},
    }
    information = {"versions": {"jax": "0.12.0"}, "devices": "2 x cpu", "command": f"train {model}"}
    (path / "config.json").write_text(json.dumps({"format": 1, "config": config, **information}))
    rows = []
    for step in range(steps // 10, steps + 1, steps // 10):
        error = train_error + (0.9 - train_error) * (1 - step / steps)
        rate = 0.1 if step <= steps // 2 else 0.01
        common = {"step": step, "loss": 2 * error, "error": error, "seconds": step / 10}
        rows.append({**common, "split": "train", "learning_rate": rate, "gradient_norm": 1 + error})
        rows.append({**common, "split": "test"})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if status is not None:
        depth = next((int(part) for part in model.split("-") if part.isdecimal()), 0)
        summary = {
            "format": 1,
            "status": status,
            "model": model,
            "dataset": dataset,
            "seed": seed,
            "num_params": PARAMETERS.get(depth, 1000),
            "multiply_adds": 1,
            "num_steps": steps,
            "diverged_at": 40 if status == "diverged" else None,
            "train_loss": 0.5,
            "train_error": train_error,
            "test_loss": None if status == "diverged" else 0.25,
            "test_error": None if status == "diverged" else test_error,
            "images_per_second": 200.0,
            "wall_seconds": 75.0,
        }
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def write_sweep(folder: Path, names: dict[str, dict[str, Any]], **more: Any) -> None:
    runs = [{"name": name, "overrides": overrides} for name, overrides in names.items()]
    record = {"format": 1, "name": "digits", "title": "A sweep", "paper": None, "recipe": "other"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({**record, **more, "runs": runs}))


@pytest.fixture(name="write_run")
def _write_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(name="write_sweep")
def _write_sweep() -> Callable[..., None]:
    return write_sweep


def write_degradation(folder: Path) -> Path:
    """Writes a sweep in which plain-56 fails to train and its residual twin does not."""
    for seed in range(3):
        jitter = 0.002 * seed
        write_run(folder, "plain-20", seed, 0.007 + jitter, 0.021 + jitter)
        write_run(folder, "plain-56", seed, 0.890 + jitter, 0.880 + jitter)
        write_run(folder, "resnet-20", seed, 0.002 + jitter, 0.020 + jitter)
        write_run(folder, "resnet-56", seed, 0.002 + jitter, 0.022 + jitter)
    return folder


@pytest.fixture
def degradation(tmp_path: Path) -> Path:
    """That sweep, of three seeds, for a test to change."""
    return write_degradation(tmp_path / "degradation")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of that sweep."""
    folder = write_degradation(tmp_path_factory.mktemp("reported") / "degradation")
    return write_report([folder], folder / "report")
