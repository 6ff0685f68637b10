"""What a network's depth costs: time a step, compilation and memory, as a figure and sentences."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from resnet_jax.reporting.style import LIGHT, Panel, use_log_scale

_COLUMNS = {
    "step_seconds": "Seconds a step",
    "compile_seconds": "Seconds to compile",
    "program_gigabytes": "Memory of the step, GB",
}


def table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a network, by depth, from what `experiments.benchmark` measures."""
    kept = ("trace_seconds", "compile_seconds", "cached_compile_seconds")
    rows = []
    for one in sorted(found, key=lambda one: one["depth"]):
        rate = statistics.median(one["train_images_per_second"])
        rows.append(
            {
                "network": one["model"],
                "depth": one["depth"],
                "step_seconds": one["batch_size"] / rate,
                **{name: one[name] for name in kept},
                "program_gigabytes": one["program_bytes"] / 1e9,
                "images_per_second": rate,
            }
        )
    return pd.DataFrame(rows)


def panels(costs: pd.DataFrame) -> list[list[Panel]]:
    """One panel a cost."""
    return [
        [
            Panel(title, functools.partial(draw, costs=costs, name=name))
            for name, title in _COLUMNS.items()
        ]
    ]


def summarize(costs: pd.DataFrame) -> list[str]:
    """How each cost grows from the shallowest network to the deepest."""
    first, last = costs.iloc[0], costs.iloc[-1]
    times = last["depth"] / first["depth"]
    sentences = [f"From {first['network']} to {last['network']}, {times:.1f} times as deep:"]
    for name, title in _COLUMNS.items():
        growth = last[name] / first[name]
        sentences.append(f"{title}: {first[name]:.3g} to {last[name]:.3g}, {growth:.1f} times.")
    return sentences


def draw(axes: Axes, costs: pd.DataFrame, name: str) -> None:
    """One cost against depth, on two logarithmic axes, each point with its number."""
    depths, values = costs["depth"].tolist(), costs[name].tolist()
    axes.semilogx(depths, values, marker="o", color=LIGHT["family-residual"])
    use_log_scale(axes)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.set_xlabel("layers")
    axes.set_ylim(min(values) / 1.6, max(values) * 1.6)
    above: dict[str, Any] = {"textcoords": "offset points", "xytext": (0, 7), "ha": "center"}
    for depth, value in zip(depths, values, strict=True):
        axes.annotate(f"{value:.2g}", (depth, value), **above)
