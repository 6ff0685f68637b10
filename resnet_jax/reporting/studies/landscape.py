"""The loss around the weights: surface, slice and the way that training took (Li et al. 2018)."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, draw_lines, looks, number, percent

TITLE = "The loss around the weights"

CLEARLY = 1.5
"""Between the areas of two valleys: other seeds of the random directions alone moved plain-20's
12-17% and resnet-20's 11-16% of the square on digits."""

_LEVELS = 12
_HIGHEST = 10.0  # above the lowest loss, in nats: what a contour shows at most


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """A contour of each net beside the next, then slices and trajectories."""
    surfaces = by(by(rows, "kind")["surface"], "net")
    levels = _levels(surfaces)
    found = [
        Panel(f"{net}", f"Contours of the loss around the weights of {net}",
              lambda axes, own=own: _contour(axes, own, levels))
        for net, own in surfaces.items()
    ]  # fmt: skip
    middle = [row for own in surfaces.values() for row in own if row["y"] == 0]
    found.append(
        Panel("Slice along the first direction", f"Loss along one direction: {', '.join(surfaces)}",
              lambda axes: draw_lines(axes, middle, "x", "loss", xlabel="distance",
                                      ylabel="loss", log=True))
    )  # fmt: skip
    trajectories = by(by(rows, "kind").get("trajectory", []), "net")
    if trajectories:
        found.append(
            Panel("Way of training", f"Checkpoints in their own plane: {', '.join(trajectories)}",
                  lambda axes: _trajectories(axes, trajectories, rows))
        )  # fmt: skip
    return [found[start : start + 2] for start in range(0, len(found), 2)]


def find(rows: Sequence[Row]) -> list[str]:
    """Loss at the weights, how soon it rises, and where it bends downwards."""
    kinds, sentences, widths = by(rows, "kind"), [], {}
    for net, own in by(kinds["surface"], "net").items():
        xs, _, loss = _grid(own)
        centre = loss[len(loss) // 2, len(xs) // 2]
        step = xs[1] - xs[0]
        widths[net] = _area(loss, centre + 1.0) * (xs[-1] - xs[0]) ** 2
        sentences.append(
            f"{net} (step {own[0]['step']:,}): the loss is {number(centre)} at the weights, and "
            f"less than one nat above that in {percent(_area(loss, centre + 1.0))} of the square "
            f"that reaches {number(xs[-1])} filter-normalised lengths; along a direction it curves "
            f"downwards at {percent(_nonconvex(loss))} of the points {number(step)} apart."
        )
        if not np.isfinite(loss).all():
            sentences.append(f"{percent(1 - np.isfinite(loss).mean())} of its points overflow.")
    families = {row["net"]: row["family"] for row in kinds["surface"]}
    depths = {row["net"]: row["depth"] for row in kinds["surface"]}
    for plain in (net for net, family in families.items() if family == "plain"):
        for twin in (net for net, family in families.items() if family != "plain"):
            if depths[plain] == depths[twin]:
                how = _compare(widths[twin], widths[plain])
                sentences.append(f"{twin}'s valley is {how} {plain}'s.")
    for net, own in by(kinds.get("trajectory", []), "net").items():
        if len(own) <= 3:
            continue  # Three points are always in one plane.
        sentences.append(
            f"Of the squared distances of {net}'s {len(own) - 1} earlier weights from the last, "
            f"two directions hold {percent(own[0]['explained_x'] + own[0]['explained_y'])}; of a "
            f"random walk of as many equal steps, {percent(held_of_random_walk(len(own)))}."
        )
    return sentences


def held_of_random_walk(points: int) -> float:
    """What two directions hold, by the same measure, of a walk of equal random steps, expected.

    In many dimensions the inner products of its offsets from its end are, up to a factor,
    min(i, j), where i and j count the steps from there to the end.
    """
    to_end = np.arange(1, points)
    values = np.linalg.eigvalsh(np.minimum.outer(to_end, to_end))
    return float(values[-2:].sum() / values.sum())


def _compare(area: float, other: float) -> str:
    if area > CLEARLY * other:
        return "wider than"
    return "narrower than" if other > CLEARLY * area else "about as wide as"


def _grid(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xs, ys = (np.array(sorted(set(column(rows, axis)))) for axis in "xy")
    loss = np.array(column(sorted(rows, key=lambda row: (row["y"], row["x"])), "loss"), float)
    return xs, ys, loss.reshape(len(ys), len(xs))


def _area(loss: np.ndarray, below: float) -> float:
    """The share of points with a loss below; one that overflowed is not."""
    return float((np.nan_to_num(loss, nan=math.inf) < below).mean())


def _nonconvex(loss: np.ndarray) -> float:
    """The share of inner points, along both axes, where the second difference is negative."""
    with np.errstate(invalid="ignore"):
        bends = [np.diff(loss, 2, axis=axis).ravel() for axis in (0, 1)]
    bends = np.concatenate(bends)
    return float((bends[np.isfinite(bends)] < 0).mean()) if np.isfinite(bends).any() else 0.0


def _levels(surfaces: dict[str, list[Row]]) -> np.ndarray:
    """The same levels for all nets, evenly spaced in the logarithm."""
    losses = np.array([row["loss"] for own in surfaces.values() for row in own], float)
    losses = losses[np.isfinite(losses)]
    low = max(losses.min(), 1e-3)
    high = max(min(losses.max(), low + _HIGHEST), 1.2 * low)
    return np.geomspace(low, high, _LEVELS + 2)[1:-1]


def _contour(axes: Axes, rows: Sequence[Row], levels: np.ndarray) -> None:
    xs, ys, loss = _grid(rows)
    shades = style.SERIES[1:6]
    drawn = axes.contour(
        xs, ys, np.nan_to_num(loss, nan=1e30, posinf=1e30), levels=levels,
        colors=[shades[i * len(shades) // len(levels)] for i in range(len(levels))], linewidths=1.1,
    )  # fmt: skip
    axes.clabel(drawn, levels[::3], fmt=number, fontsize=7)
    axes.plot(0, 0, "+", color=style.LIGHT["ink"], markersize=8)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")


def _trajectories(axes: Axes, nets: dict[str, list[Row]], rows: Sequence[Row]) -> None:
    look = looks(rows)
    for net, own in nets.items():
        # Each net by the length of its own way: a net that was thrown far would hide the others.
        length = max(math.hypot(row["x"], row["y"]) for row in own) or 1.0
        xs, ys = ([row[axis] / length for row in own] for axis in "xy")
        axes.plot(xs, ys, ".-", color=look[net].colour, linewidth=1.2)
        axes.annotate(
            net, (xs[0], ys[0]), xytext=(4, 4), textcoords="offset points", fontsize=8,
            color=look[net].colour,
        )  # fmt: skip
    axes.plot(0, 0, "+", color=style.LIGHT["ink"], markersize=8)
    axes.set_xlabel("first principal direction, relative")
    axes.set_ylabel("second, relative")
