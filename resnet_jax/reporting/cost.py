"""What a net's depth costs: time a step, compilation and memory."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import Panel, use_log_scale

Row = dict[str, Any]

_COLUMNS = (
    ("step_seconds", "Seconds a step"),
    ("compile_seconds", "Seconds to compile"),
    ("program_gigabytes", "Memory of the step, GB"),
)


def rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row a net, by depth, from what `experiments.benchmark` measures."""
    table = []
    for one in sorted(found, key=lambda one: one["depth"]):
        rate = statistics.median(one["train_images_per_second"])
        table.append(
            {
                "net": one["model"],
                "depth": one["depth"],
                "step_seconds": one["batch_size"] / rate,
                "trace_seconds": one["trace_seconds"],
                "compile_seconds": one["compile_seconds"],
                "cached_compile_seconds": one["cached_compile_seconds"],
                "program_gigabytes": one["program_bytes"] / 1e9,
                "images_per_second": rate,
            }
        )
    return table


def panels(table: Sequence[Row]) -> list[list[Panel]]:
    """One panel a cost."""
    return [
        [
            Panel(title, f"{title} against depth", lambda axes, name=name: _draw(axes, table, name))
            for name, title in _COLUMNS
        ]
    ]


def find(table: Sequence[Row]) -> list[str]:
    """How each cost grows from the shallowest net to the deepest."""
    first, last = table[0], table[-1]
    times = last["depth"] / first["depth"]
    sentences = [f"From {first['net']} to {last['net']}, {times:.1f} times as deep:"]
    for name, title in _COLUMNS:
        growth = last[name] / first[name]
        sentences.append(f"{title}: {first[name]:.3g} to {last[name]:.3g}, {growth:.1f} times.")
    return sentences


def _draw(axes: Axes, table: Sequence[Row], name: str) -> None:
    depths, values = ([row[column] for row in table] for column in ("depth", name))
    axes.semilogx(depths, values, marker="o", color=style.LIGHT["family-residual"])
    use_log_scale(axes)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.set_xlabel("layers")
    low, high = min(values), max(values)
    axes.set_ylim(low / 1.6, high * 1.6)
    for depth, value in zip(depths, values, strict=True):
        axes.annotate(
            f"{value:.2g}", (depth, value), textcoords="offset points", xytext=(0, 7), ha="center"
        )
