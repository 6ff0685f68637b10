"""A deeper net built from a shallower one: as good, and where training takes it (v1 §1)."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import Panel
from resnet_jax.reporting.studies.rows import Row, by, column, finish, number, percent

TITLE = "The constructed solution"

SAME = 1e-4
"""Of the logits' size: a difference that rounding in so many layers explains."""

AS_WELL = 0.01
"""A training error within one point of the built net's."""

_COLOURS = {"constructed": style.LIGHT["series-4"], "scratch": style.LIGHT["series-1"]}


def panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """Training error of both starts against steps, a panel a net."""
    found = []
    for net, own in by(rows, "net").items():
        training = by(own, "kind").get("training")
        if training:
            shallow = _as_built(own, "shallow")["error"]
            found.append(
                Panel(f"{net} from two starts", f"Training error of {net} against steps",
                      lambda axes, own=training, level=shallow: _curves(axes, own, level))
            )  # fmt: skip
        else:
            found.append(
                Panel(net, f"Error of {net} as built, and of the net that it is built from",
                      lambda axes, own=own: _bars(axes, own))
            )  # fmt: skip
    return [found[start : start + 2] for start in range(0, len(found), 2)]


def find(rows: Sequence[Row]) -> list[str]:
    """Whether the deep net computes what the shallow one does, and where both starts end."""
    sentences = []
    for net, own in by(rows, "net").items():
        shallow, built = (_as_built(own, start) for start in ("shallow", "constructed"))
        relative = built["logits_difference"] / max(built["logits_size"], 1e-30)
        same = "computes what" if relative <= SAME else "does not compute what"
        sentences.append(
            f"{net}, built from {built['from']} (step {built['from_step']:,}) by identity layers, "
            f"{same} it does: logits differ by {number(relative)} of their size at most, "
            f"error {percent(built['error'])} and {percent(shallow['error'])}."
        )
        training = by(own, "kind").get("training")
        if training:
            sentences.append(_ends(training))
    return sentences


def _ends(training: list[Row]) -> str:
    """Compares what the optimiser saw at the end of both trainings, after as many steps in all."""
    last = {start: members[-1] for start, members in by(training, "start").items()}
    built, scratch = last["constructed"]["error"], last["scratch"]["error"]
    shallow, had, total = (last["constructed"][key] for key in ("from", "from_step", "at_step"))
    if scratch > built + AS_WELL:
        meaning = (
            "a solution as good exists, and training from scratch does not reach it in as many "
            "steps"
        )
    else:
        meaning = "training from scratch does as well, so nothing shows that it is hard to find"
    return (
        f"Trained on from there for {total - had:,} steps, {total:,} with those of {shallow}, it "
        f"has a training error of {percent(built)}; trained from scratch for {total:,} steps, "
        f"{percent(scratch)}: {meaning}."
    )


def _as_built(own: Sequence[Row], start: str) -> Row:
    """What was evaluated before any training of the deep net."""
    return next(
        row for row in own
        if (row["kind"], row["start"], row["at_step"]) == ("evaluated", start, row["from_step"])
    )  # fmt: skip


def _curves(axes: Axes, rows: Sequence[Row], level: float) -> None:
    axes.set_ylim(0, 100)
    ends = []
    for start, own in by(rows, "start").items():
        errors = [100 * error for error in column(own, "error")]
        axes.plot(column(own, "at_step"), errors, color=_COLOURS[start], linewidth=1.8)
        ends.append((errors[-1], f"from {start}", _COLOURS[start]))
    muted = style.LIGHT["muted"]
    axes.axhline(100 * level, color=muted, linewidth=0.8, linestyle=":")
    ends.append((100 * level, f"{rows[0]['from']}, as it was", muted))
    axes.set_xlabel("step, those of the shallower net counted")
    axes.set_ylabel("training error, %")
    finish(axes, [0, *column(rows, "at_step")], ends)


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    values = [100 * _as_built(rows, start)["error"] for start in ("shallow", "constructed")]
    labels = [str(rows[0]["from"]), f"{rows[0]['net']}, built from it"]
    axes.barh(labels, values, color=style.LIGHT["series-4"], height=0.5)
    axes.set_xlabel("error, %")
    axes.invert_yaxis()
