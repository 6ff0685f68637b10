"""Gradients of nearby images against depth (Balduzzi et al. 2017)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, draw_lines, listed

TITLE = "Shattered gradients"

_KINDS = (("nearby", "Nearby images"), ("unrelated", "Different images"))
SHATTERED = 0.5
"""Of the shallowest net's correlation: less than that at the deepest counts as shattered."""
SHATTERED_ALREADY = 0.1
"""A correlation of the shallowest net of which nothing is left to lose."""


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """Correlations against depth: of nearby and of different images."""
    names = ", ".join(by(rows, "net"))
    return [
        [Panel(title, f"Correlation of gradients against depth: {names}",
               lambda axes, kind=kind: _draw(axes, rows, kind)) for kind, title in _KINDS]
    ]  # fmt: skip


def find(rows: Sequence[Row]) -> list[str]:
    """How the correlation goes with depth; rates on the depths at which all nets have one."""
    inputs = np.mean(column(rows, "nearby_inputs"))
    nets, depths = by(rows, "net"), by(rows, "depth").items()
    shared = {
        depth for depth, own in depths
        if len(own) == len(nets) and min(column(own, "nearby")) > 0
    }  # fmt: skip
    sentences = [f"Images whose own correlation is {inputs:.2f} have gradients that correlate:"]
    for net, own in nets.items():
        values = listed(f"{row['nearby']:.2f} at {row['depth']} layers" for row in own)
        sentences.append(f"{net}: {values}{_verdict(own, shared)}")
    return sentences


def _verdict(own: Sequence[Row], shared: set[int]) -> str:
    if len(own) < 2:
        return "."
    first, last = own[0], own[-1]
    if first["nearby"] < SHATTERED_ALREADY:
        return f": near zero already at {first['depth']} layers."
    words = "shatter" if last["nearby"] < SHATTERED * first["nearby"] else "do not shatter"
    text = f": with depth they {words}"
    kept = [(row["depth"], row["nearby"]) for row in own if row["depth"] in shared]
    if len(kept) >= 3:
        depths, values = np.array(kept).T
        geometric = np.polyfit(depths, np.log(values), 1)[0]
        power = np.polyfit(np.log(depths), np.log(values), 1)[0]
        text += (
            f" (from {depths[0]:.0f} to {depths[-1]:.0f} layers ×{np.exp(geometric):.3f} a layer, "
            f"or depth to the power {power:.2f})"
        )
    return f"{text}."


def _draw(axes: Axes, rows: Sequence[Row], kind: str) -> None:
    draw_lines(
        axes, rows, "depth", kind, xlabel="layers", ylabel="correlation of gradients", marker="."
    )
    axes.axhline(0, color=style.LIGHT["muted"], linewidth=0.6)
