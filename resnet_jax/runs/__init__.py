"""What a run is and leaves: the reader and writer of its folder, its config, its lock."""

from resnet_jax.runs.folder import (
    FORMAT,
    MetricsLog,
    Row,
    Run,
    as_json,
    checkpoint_steps,
    final_training_metrics,
    find_runs,
    last_epoch_start,
    read_log,
    read_run,
    write_config,
    write_json,
    write_text,
)
from resnet_jax.runs.recipe import LEGACY_DEFAULTS, RUNTIME_FIELDS, Recipe, load_recipe

__all__ = [
    "FORMAT",
    "LEGACY_DEFAULTS",
    "RUNTIME_FIELDS",
    "MetricsLog",
    "Recipe",
    "Row",
    "Run",
    "as_json",
    "checkpoint_steps",
    "final_training_metrics",
    "find_runs",
    "last_epoch_start",
    "load_recipe",
    "read_log",
    "read_run",
    "write_config",
    "write_json",
    "write_text",
]
