"""v1 Figure 7: residual nets' layers respond less, and those of deeper residual nets less still."""

import functools
import statistics
from collections.abc import Sequence

from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, draw_lines, listed, pairs_by_family

TITLE = "Responses of the 3×3 layers"

ALIKE = 0.05  # Of the mean deviation: single nets that differ by less are not told apart.


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """In the order of the layers, and sorted, as v1 Figure 7 has them."""
    names = ", ".join(by(rows, "net"))
    draw = functools.partial(draw_lines, y="std", ylabel="std of the response")
    return [
        [
            Panel("By layer", f"Standard deviation of each layer's response: {names}",
                  lambda axes: draw(axes, rows, x="layer", xlabel="3×3 layer")),
            Panel("By size", f"The same deviations in falling order: {names}",
                  lambda axes: draw(axes, _sorted(rows), x="layer", xlabel="3×3 layers, sorted")),
        ]
    ]  # fmt: skip


def find(rows: Sequence[Row]) -> list[str]:
    """The mean response of each net, and each residual net beside its plain twin (v1 Fig. 7)."""
    nets = by(rows, "net")
    level = {net: statistics.mean(column(own, "std")) for net, own in nets.items()}
    sentences = [
        "Mean standard deviation of the layers' responses: "
        + listed(f"{net} {value:.2f}" for net, value in level.items())
        + "."
    ]
    first = {net: own[0] for net, own in nets.items()}
    for plain in (row for row in first.values() if row["family"] == "plain"):
        for twin in first.values():
            if twin["family"] != "plain" and twin["depth"] == plain["depth"]:
                sentences.append(_compare(twin["net"], plain["net"], level))
    for shallow, deep in pairs_by_family(first):
        if first[deep]["family"] != "plain":
            sentences.append(_compare(deep, shallow, level))
    return sentences


def _compare(net: str, other: str, level: dict[str, float]) -> str:
    """v1 expects the first to respond less."""
    ratio = level[net] / level[other]
    if abs(ratio - 1) < ALIKE:
        return f"{net}'s layers respond about as strongly as {other}'s, where v1 found less."
    if ratio < 1:
        return f"{net}'s layers respond less than {other}'s, as v1 Figure 7 has it."
    return f"{net}'s layers respond more than {other}'s, unlike v1's."


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return [
        {**row, "std": std, "layer": place}
        for own in by(rows, "net").values()
        for place, (row, std) in enumerate(
            zip(own, sorted(column(own, "std"), reverse=True), strict=True), start=1
        )
    ]
