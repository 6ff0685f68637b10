"""What a run is and leaves: the reader and writer of its folder, its config, its lock."""

from resnet_jax.runs.folder import (
    FORMAT,
    WHERE_NOT_WHAT,
    MetricsLog,
    Row,
    Run,
    as_json,
    final_training_figures,
    find_runs,
    read_run,
    write_config,
    write_json,
    write_text,
)

__all__ = [
    "FORMAT",
    "WHERE_NOT_WHAT",
    "MetricsLog",
    "Row",
    "Run",
    "as_json",
    "final_training_figures",
    "find_runs",
    "read_run",
    "write_config",
    "write_json",
    "write_text",
]
