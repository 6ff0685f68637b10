"""A line's name stands where the line ends, whatever else its study draws beside it."""

import numpy as np
import pandas as pd
import pytest

from resnet_jax.reporting import style
from resnet_jax.studies import jacobian, lesions, sharpness, shattering, shortcuts, tables

NETWORKS = (
    {"network": "plain-56", "family": "plain", "depth": 56, "step": 0, "seed": 0},
    {"network": "resnet-56", "family": "residual", "depth": 56, "step": 0, "seed": 0},
)


def deleted(factor):
    intact = {"kind": "intact", "error": 0.01 * factor}
    each = [{"kind": "delete_each", "block": n, "error": 0.1 * factor / n} for n in (1, 2, 3)]
    lengths = [{"kind": "path", "length": n, "share": 0.1 * factor, "norm": 0.3} for n in (0, 1)]
    return [intact, *each, *lengths]


def trained_on(factor):
    about = {"eigenvalue": 5.0 * factor, "error": 0.1 * factor, "from": "plain-20"}
    rates = [{"rate": rate, "limit": 3.8 / rate, **about} for rate in (0.1, 0.01, 0.001)]
    built = {**rates[0], "kind": "constructed"}
    noise = [{**built, "kind": "noise", "noise": 0.1 * n, "error": 0.2 * factor} for n in (1, 2)]
    return [built, *({**row, "kind": "rate"} for row in rates), *noise]


def spectrum(factor):
    return [
        {"layer": layer, "place": place, "value": factor**layer / place, "rms": 0.01, "exact": 1}
        for layer in (3, 5, 7) for place in (1, 2)
    ]  # fmt: skip


def passed(factor):
    return [{"passed": n, "measured": factor**n, "predicted": 10.0 ** (4 * n)} for n in (1, 2, 3)]


def correlated(factor):
    return [{"depth": n, "nearby": 0.2 * factor, "unrelated": 0.3 + factor} for n in (8, 20, 56)]


@pytest.mark.parametrize(
    ("study", "rows"),
    [
        (lesions, deleted),
        (sharpness, trained_on),
        (jacobian, spectrum),
        (shortcuts, passed),
        (shattering, correlated),
    ],
)
def test_name_stands_at_its_lines_end(study, rows):
    table = pd.DataFrame(
        [{**network, **row} for network, factor in zip(NETWORKS, (1.5, 4.0), strict=True)
         for row in rows(factor)]
    )  # fmt: skip
    with style.drawing_settings():
        figure = style.draw_all(study.plot(table))
        style.to_svg(figure)  # Only now are the axes' limits what they will be.
        for axes in figure.axes:
            to_axes = axes.transData - axes.transAxes
            lines = [line for line in axes.lines if line.get_linewidth() == 1.6]
            ends = [to_axes.transform(line.get_xydata()[-1])[1] for line in lines]
            to_names = [line for line in axes.lines if list(line.get_xdata()) == [1.0, 1.025]]
            named = [line.get_ydata()[0] for line in to_names]
            np.testing.assert_allclose(named, ends, atol=1e-6, err_msg=axes.get_title())
            assert len(named) == 2


def labels(*names: str) -> list[str]:
    rows = [{**NETWORKS[0], "network": name} for name in names]
    return [look.label for look in tables.looks(pd.DataFrame(rows)).values()]


def test_names_leave_out_the_model_that_all_share():
    assert labels("plain-56, activation=tanh", "plain-56, activation=relu") == ["tanh", "relu"]
    assert labels("plain-56", "plain-56, activation=relu") == ["plain-56", "plain-56, relu"]


def test_names_are_cut_only_where_that_leaves_them_apart():
    long = "plain-56, activation=tanh, initialization=delta_orthogonal, norm=none"
    assert labels("resnet-56", long)[1].endswith("…")
    steps = [f"plain-56, schedule.warmup=linear, warmup_steps={steps}" for steps in (10, 160)]
    assert labels("resnet-56", *steps)[1:] == steps


def paired(*names: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """`pairs_by_family` and `twins` of networks of such labels."""
    rows = [
        {"network": name, "family": "residual" if name.startswith("resnet") else "plain",
         "depth": int(name.partition(",")[0].rpartition("-")[2]), "step": 0, "seed": 0}
        for name in names
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return set(tables.pairs_by_family(table)), set(tables.twins(table))


def test_networks_each_at_its_own_rate_are_compared():
    shallow, deep = "resnet-20, learning_rate=0.1", "resnet-110, warmup=until_error"
    plain = "plain-20, learning_rate=0.03, num_steps=300"
    assert paired(shallow, deep, plain) == ({(shallow, deep)}, set())
    twin = "plain-20, learning_rate=0.03"
    assert paired(shallow, deep, twin) == ({(shallow, deep)}, {(twin, shallow)})


def test_networks_of_equal_training_are_compared_before_others():
    fast, slow, deep = "plain-20, learning_rate=0.1", "plain-20", "plain-56"
    pairs, twins = paired(fast, slow, deep, "resnet-20")
    assert pairs == {(slow, deep)}
    assert twins == {(slow, "resnet-20"), (fast, "resnet-20")}
