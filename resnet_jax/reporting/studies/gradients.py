"""Do gradients vanish or explode on their way back through a net? (v1 §1, §4.1)"""

from collections.abc import Sequence

from matplotlib.axes import Axes

from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, draw_lines, listed, looks, number

TITLE = "Activations and gradients along the depth"

VANISHED, EXPLODED = 1e-3, 1e3
"""Of the gradient at the first unit over that at the last: what counts as vanished or exploded."""

_COLUMNS = (
    ("gradient", "Gradient of the signal", "gradient norm"),
    ("weight_gradient", "Gradient of the weights", "gradient norm of a unit's kernels"),
    ("activation", "Activation", "root mean square"),
)


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """A row of panels for each state that was looked at: at the start, and after training."""
    stages = {}
    for own in by(rows, "net").values():
        steps = sorted(by(own, "step"))
        for place, step in enumerate(steps):
            moment = "at the start" if step == 0 else "trained"
            if step == 0 or place == len(steps) - 1:
                stages.setdefault(moment, []).extend(by(own, "step")[step])
    return [
        [_panel(f"{title}, {moment}", stages[moment], column, words)
         for column, title, words in _COLUMNS]
        for moment in sorted(stages)
    ]  # fmt: skip


def _panel(title: str, rows: list[Row], column: str, words: str) -> Panel:
    def draw(axes: Axes) -> None:
        drawn = [row for row in rows if row[column] > 0]
        if not drawn:
            axes.text(0.5, 0.5, "zero everywhere", ha="center", transform=axes.transAxes)
            return
        draw_lines(axes, drawn, "layer", column, xlabel="layer", ylabel=words, log=True)

    return Panel(title, f"{title} against the layer: {', '.join(looks(rows))}", draw)


def find(rows: Sequence[Row]) -> list[str]:
    """Of each net the first and the last state, and that between in which least arrives.

    Of plain nets that were looked at trained, too, whether gradients vanish at any of the steps.
    """
    sentences: list[str] = []
    healthy: dict[tuple[int, ...], list[str]] = {}
    for net, own in by(rows, "net").items():
        states = by(own, "step")
        faintest = min(states, key=lambda step: _ratio(states[step]))
        for step in sorted({min(states), faintest, max(states)}):
            when = "at initialisation" if step == 0 else f"at step {step:,}"
            sentences.append(f"{net} {when}: {describe(states[step])}")
        never = {verdict(state) for state in states.values()}.isdisjoint({"vanished", "lost"})
        if own[0]["family"] == "plain" and max(states) > 0 and never:
            healthy.setdefault(tuple(sorted(states)), []).append(net)
    for steps, nets in healthy.items():
        shown = listed(f"{step:,}" for step in steps)
        sentences.append(f"At steps {shown} no vanishing was seen in {listed(nets)}.")
    return sentences


def _ratio(own: Sequence[Row]) -> float:
    return own[0]["gradient"] / own[-1]["gradient"] if own[-1]["gradient"] else 0.0


def describe(own: Sequence[Row]) -> str:
    """E.g. "gradients vanish: 1.2e-20 of the last unit's norm is left at the first, ×0.46 a
    layer."
    """
    result = verdict(own)
    if result == "lost":
        return "gradients are zero or not finite: nothing arrives."
    reached = [row for row in own if row["gradient"] > 0]
    ratio = reached[0]["gradient"] / own[-1]["gradient"]
    layers = own[-1]["layer"] - reached[0]["layer"]
    a_layer = ratio ** (1 / layers) if layers else 1.0
    rest = "" if len(reached) == len(own) else " and is too small for a float before that"
    lead = {
        "vanished": "gradients vanish",
        "exploded": "gradients explode",
        "healthy": "gradients neither vanish nor explode",
    }[result]
    return (
        f"{lead}: from the last unit back to the first their norm changes by ×{number(ratio)} "
        f"over {layers} layers, ×{a_layer:.3g} a layer{rest}."
    )


def verdict(own: Sequence[Row]) -> str:
    """One of "vanished", "exploded", "healthy", or "lost" where a norm is zero or not finite."""
    first, last = own[0]["gradient"], own[-1]["gradient"]
    if not (0 < last < float("inf") and first < float("inf")):
        return "lost"
    if first <= VANISHED * last:
        return "vanished"
    return "exploded" if first >= EXPLODED * last else "healthy"
