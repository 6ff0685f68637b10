"""How far seeds of a network spread, measured on archived runs and kept as data.

A single run has no spread of its own. `spreads.csv` holds what several seeds of a network gave, by
data set and length of the training; `experiments.report --results` writes it anew from `results/`.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from resnet_jax import runs
from resnet_jax.reporting import naming
from resnet_jax.reporting.load import collect
from resnet_jax.reporting.results import Group
from resnet_jax.reporting.statistics import summarize

PACKAGED = Path(__file__).with_name("spreads.csv")

_SAME = {
    "dataset": "dataset.name",
    "num_steps": "num_steps",
    "batch_size": "batch_size",
    "learning_rate": "schedule.learning_rate",
}
COLUMNS = [*_SAME, "family", "model", "seeds", "train_error", "test_error"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds, in percentage points, and whose it is."""

    std: float
    freedom: int
    source: str


def measure(folder: Path) -> pd.DataFrame:
    """A row for each group of several completed seeds in the archive `folder`.

    Columns are `COLUMNS`; the errors' are standard deviations in percentage points.
    """
    rows = []
    for place in sorted(
        filter(Path.is_dir, folder.iterdir()), key=lambda p: naming.natural(p.name)
    ):
        groups = collect([place]).groups if runs.find_runs(place) else []
        rows += [_row(group) for group in groups if len(group.values("test_error")) > 1]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(group: Group) -> dict:
    return {
        **{column: group.settings.get(field) for column, field in _SAME.items()},
        "family": group.family,
        "model": group.model,
        "seeds": len(group.values("test_error")),
        **{
            field: round(100 * summarize(group.values(field)).std, 3)
            for field in ("train_error", "test_error")
        },
    }


def write(folder: Path, path: Path = PACKAGED) -> None:
    """Measures the spreads of the archive `folder` and writes them to `path`."""
    runs.write_text(path, measure(folder).to_csv(index=False, lineterminator="\n"))


def packaged() -> pd.DataFrame:
    return pd.read_csv(PACKAGED)


def lookup(table: pd.DataFrame, group: Group, field: str) -> Spread | None:
    """The spread of runs like the group's: same data set, length and learning rate.

    The network's own where it was measured, else the largest of its family.
    """
    same = table[table["family"] == group.family]
    for column, name in _SAME.items():
        same = same[same[column] == group.settings.get(name)]
    same = same[same[field].notna()]
    own = same[same["model"] == group.model]
    if same.empty:
        return None
    row = (same if own.empty else own).sort_values(field).iloc[-1]
    return Spread(float(row[field]), int(row["seeds"]) - 1, f"{row['model']}, {row['seeds']} seeds")
