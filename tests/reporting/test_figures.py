import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_jax.reporting import plots, setting_plots, style
from resnet_jax.reporting.load import collect
from resnet_jax.reporting.page import inline
from resnet_jax.reporting.plots import error_top, learning_rate_drops, looks, median_curve, thin
from resnet_jax.reporting.style import shorten, spread_out


def titles(folder: Path) -> list[list[str]]:
    rows = plots.panel_rows(collect([folder]).groups)
    return [[panel.title for panel in row] for row in rows]


def test_plain_stands_left_and_residual_right(degradation: Path):
    assert titles(degradation) == [
        ["Plain networks", "Residual networks"],
        ["Training error against depth", "Test error against depth"],
        ["Plain networks, gradient norm", "Residual networks, gradient norm"],
    ]


def test_plain_and_residual_share_one_scale(degradation: Path):
    rows = plots.panel_rows(collect([degradation]).groups)
    with style.drawing_settings():
        for row in rows:
            limits = {style.draw_one(panel).axes[0].get_ylim() for panel in row}
            assert len(limits) == 1


def test_one_family_leaves_no_empty_panel(tmp_path: Path, write_run):
    write_run(tmp_path, "resnet-20")
    assert titles(tmp_path) == [["resnet-20", "resnet-20, gradient norm"]]
    write_run(tmp_path, "resnet-56")
    assert titles(tmp_path) == [
        ["Residual networks", "Residual networks, gradient norm"],
        ["Training error against depth", "Test error against depth"],
    ]


def test_runs_without_gradient_norms_have_no_panel_for_them(tmp_path: Path, write_run):
    for model in ("plain-20", "resnet-20"):
        path = write_run(tmp_path, model) / "metrics.jsonl"
        path.write_text(path.read_text().replace("gradient_norm", "other"))
    assert titles(tmp_path) == [["Plain networks", "Residual networks"]]


def test_same_runs_give_the_same_bytes(degradation: Path):
    rows = plots.panel_rows(collect([degradation]).groups)
    drawn = []
    for _ in range(2):
        with style.drawing_settings():
            figure = style.draw_all(rows)
            drawn.append((style.to_svg(figure), style.to_png(figure)))
    assert drawn[0] == drawn[1]
    assert "<dc:date>" not in drawn[0][0]


def test_training_is_thin_and_dashed_and_test_is_bold(tmp_path: Path, write_run):
    write_run(tmp_path, "plain-20")
    row = plots.panel_rows(collect([tmp_path]).groups)[0]
    with style.drawing_settings():
        curves = [line for line in style.draw_one(row[0]).axes[0].lines if line.get_zorder() == 3]
    training, test = curves
    assert training.is_dashed()
    assert not test.is_dashed()
    assert test.get_linewidth() > 2 * training.get_linewidth()


def test_twins_of_one_depth_look_alike_and_depths_differ(degradation: Path):
    groups = collect([degradation]).groups
    look = {group.model: looks(groups)[id(group)] for group in groups}
    assert look["plain-20"].colour == look["resnet-20"].colour
    assert look["plain-20"].colour != look["plain-56"].colour
    assert look["plain-20"].marker != look["plain-56"].marker


def test_deeper_nets_are_darker_on_paper():
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    greys = [grey(colour) for colour in style.SERIES]
    assert greys == sorted(greys, reverse=True)


def test_curve_of_seeds_is_their_median_at_common_steps(tmp_path: Path, write_run):
    for seed, error in enumerate((0.1, 0.2, 0.9)):
        write_run(tmp_path, "plain-20", seed, error, error)
    steps, values = median_curve(collect([tmp_path]).results, "test", "error")
    assert steps[-1] == 300
    assert values[-1] == pytest.approx(0.2)


def test_learning_rate_drops_are_found_where_they_happen(tmp_path: Path, write_run):
    write_run(tmp_path, "plain-20")
    (result,) = collect([tmp_path]).results
    assert learning_rate_drops(result) == [150]


def test_boundaries_in_steps_are_where_the_learning_rate_drops(tmp_path: Path, write_run):
    path = write_run(tmp_path, "plain-20") / "config.json"
    record = json.loads(path.read_text())
    record["config"]["schedule"]["boundaries"] = [160]
    path.write_text(json.dumps(record))
    (result,) = collect([tmp_path]).results
    assert learning_rate_drops(result) == [160]


def test_learning_rate_drops_of_thinned_curves_are_where_the_schedule_has_them():
    archived = Path(__file__).parents[2] / "results/cifar10-4000-steps"
    for result in collect([archived]).results:
        assert learning_rate_drops(result) == [2000, 3000]


def test_small_sweeps_hide_no_net_and_large_ones_may_name_one_at_the_edge(
    tmp_path: Path, write_run
):
    for depth, error in ((20, 0.09), (110, 0.6)):
        write_run(tmp_path, f"plain-{depth}", 0, error, error)
    assert error_top(collect([tmp_path]).groups) == 100
    for depth in (20, 32, 44, 56):
        write_run(tmp_path, f"resnet-{depth}", 0, 0.08, 0.08)
    groups = collect([tmp_path]).groups
    assert error_top(groups) == 20
    with style.drawing_settings():
        svg = style.to_svg(style.draw_all(plots.panel_rows(groups)))
    assert "plain-110 ↑ 60%" in svg


def test_long_curves_are_thinned_and_keep_their_last_point():
    steps = np.arange(1, 10_001, dtype=np.float64)
    thinned, values = thin(steps, steps / 2)
    assert thinned.size <= 241
    assert (thinned[-1], values[-1]) == (10_000, 5_000)
    assert np.all(np.diff(thinned) > 0)


def test_labels_are_moved_apart_in_their_order():
    places = spread_out([0.5, 0.51, 0.52, 0.99, 1.0], gap=0.1)
    assert np.all(np.diff(places) >= 0.1 - 1e-9)
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.ptp(spread_out(np.zeros(40))) == pytest.approx(1)


def test_line_that_ends_early_is_led_to_its_name():
    axes = Figure().add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 1))
    style.label_line_ends(axes, [(3, 0.5, "early", "red"), (10, 0.2, "late", "blue")])
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted.get_color() == style.LIGHT["muted"]
    assert list(dotted.get_xdata()) == [pytest.approx(0.3), 1.0]
    assert [text.get_text() for text in axes.texts] == ["early", "late"]


def test_long_labels_are_cut():
    assert len(shorten("x" * 100)) == style.LONGEST
    assert shorten("two\nlines") == "two lines"


def test_drawing_takes_the_pages_colours_and_keeps_its_ids_to_itself(degradation: Path):
    panel = plots.panel_rows(collect([degradation]).groups)[0][0]
    with style.drawing_settings():
        svg = inline(style.to_svg(style.draw_one(panel)), "first", "Plain & <nets>")
    assert not re.search(r"(fill|stroke): #", svg)
    assert "var(--series-0)" in svg
    assert "<style" not in svg
    assert 'aria-label="Plain &amp; &lt;nets&gt;"' in svg
    assert all(name.startswith("first-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert all(name.startswith("first-") for name in re.findall(r"url\(#([^)]*)\)", svg))


def test_dollars_in_names_are_not_mathematics(tmp_path: Path, write_run):
    write_run(tmp_path, r"$\frac{net$-20", name="run")
    with style.drawing_settings():
        svg = style.to_svg(style.draw_all(plots.panel_rows(collect([tmp_path]).groups)))
    assert r"$\frac{net$-20" in svg


def write_grid(folder: Path, write_run, **more: Any) -> None:
    """Four values of a field by three depths; the error is lowest at the second."""
    for depth in (20, 32, 56):
        for index, scale in enumerate((0.0, 0.25, 0.5, 1.0)):
            error = abs(index - 1) / 10 + depth / 1000
            name = f"{depth}-{scale}"
            dial = {"shortcut": "constant_scaling", "shortcut_scale": scale}
            write_run(folder, f"resnet-{depth}", 0, error, error, name=name, **dial, **more)


def test_error_over_depth_and_one_number_is_a_grid(tmp_path: Path, write_run):
    write_grid(tmp_path, write_run)
    groups = collect([tmp_path]).groups
    (plane,) = setting_plots.find_planes(groups)
    assert (plane.field, plane.depths) == ("model.shortcut_scale", [20, 32, 56])
    assert plane.values == [0.0, 0.25, 0.5, 1.0]
    ((training, test),) = setting_plots.grid_rows(groups)
    assert (training.title, test.title) == (
        "Residual: training error, %", "Residual: test error, %"
    )  # fmt: skip
    with style.drawing_settings():
        axes = style.draw_one(training).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[0, 0] == "12"  # 20 layers, the first value
    assert cells[2, 1] == "5.6"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.25", "0.5", "1"]


def test_grids_of_several_data_sets_are_told_apart(tmp_path: Path, write_run):
    for dataset in ("digits", "fashion_mnist"):
        write_grid(tmp_path / dataset, write_run, dataset=dataset)
    groups = collect([tmp_path / "digits", tmp_path / "fashion_mnist"]).groups
    assert [panel.title for row in setting_plots.grid_rows(groups) for panel in row] == [
        "digits: Residual: training error, %",
        "fashion_mnist: Residual: training error, %",
    ]


def test_grid_never_hides_a_network_behind_another_of_its_depth(tmp_path: Path, write_run):
    for depth in (50, 101, 152):
        for number, scale in enumerate((0.1, 0.2, 0.3)):
            write_run(tmp_path, f"resnet-{depth}", branch_scale=scale, name=f"{depth}-{number}")
    assert len(setting_plots.find_planes(collect([tmp_path]).groups)) == 1
    write_run(tmp_path, "cifar-resnet-50", branch_scale=0.1, name="cifar")
    assert setting_plots.find_planes(collect([tmp_path]).groups) == []


def test_grid_of_learning_rates_marks_the_best_of_each_depth(tmp_path: Path, write_run):
    write_grid(tmp_path, write_run)
    for path in tmp_path.glob("*/config.json"):
        record = json.loads(path.read_text())
        config = record["config"]
        config["schedule"]["learning_rate"] = config["model"].pop("shortcut_scale")
        del config["model"]["shortcut"]
        path.write_text(json.dumps(record))
    ((training, _),) = setting_plots.grid_rows(collect([tmp_path]).groups)
    with style.drawing_settings():
        texts = style.draw_one(training).axes[0].texts
    bold = {text.get_position() for text in texts if text.get_fontweight() == "bold"}
    assert bold == {(0, 1), (1, 1), (2, 1)}


def test_mean_of_seeds_of_which_others_diverged_is_starred(tmp_path: Path, write_run):
    write_grid(tmp_path, write_run)
    plane = setting_plots.find_planes(collect([tmp_path]).groups)[0]
    group = next(iter(plane.groups.values()))
    survivor, lost = (
        group.results[0],
        dataclasses.replace(
            group.results[0],
            seed=9,
            run=dataclasses.replace(group.results[0].run, status="diverged"),
        ),
    )
    some = dataclasses.replace(group, results=(survivor, lost))
    assert setting_plots._cell(some, 12.0) == "12*"
    assert setting_plots._cell(group, 12.0) == "12"


def test_many_settings_stand_in_rows_the_best_above(tmp_path: Path, write_run):
    cures = ({}, {"norm": "none"}, {"parameterization": "dirac"}, {"parameterization": "repvgg"},
             {"norm": "none", "activation": "tanh"})  # fmt: skip
    for index, cure in enumerate(cures):
        for depth in (20, 56):
            write_run(
                tmp_path, f"plain-{depth}", 0, 0.1 * (index + 1), name=f"{index}-{depth}", **cure
            )
    ((training, _),) = setting_plots.setting_rows(collect([tmp_path]).groups)
    with style.drawing_settings():
        axes = style.draw_one(training).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "plain, tanh, norm=none", "plain, repvgg", "plain, dirac", "plain, norm=none", "plain",
    ]  # fmt: skip


def test_settings_whose_long_names_begin_alike_have_rows_of_their_own(tmp_path: Path, write_run):
    warmups = [{"warmup": "linear", "warmup_steps": steps} for steps in (10, 20, 40, 80, 160)]
    widths = [{"width": width} for width in range(8, 15)]  # Most have no warm-up.
    for index, setting in enumerate([*warmups, *widths]):
        write_run(tmp_path, "plain-56", 0, 0.1, name=str(index), **setting)
    ((training, _),) = setting_plots.setting_rows(collect([tmp_path]).groups)
    with style.drawing_settings():
        axes = style.draw_one(training).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == len(set(names)) == 12


def drawn(folder: Path) -> Axes:
    ((training, _),) = setting_plots.setting_rows(collect([folder]).groups)
    with style.drawing_settings():
        return style.draw_one(training).axes[0]


def test_settings_of_which_seeds_diverged_stand_below_and_say_so(tmp_path: Path, write_run):
    diverged = {("relu", 1), ("tanh", 0), ("tanh", 1)}
    for index, norm in enumerate(("none", "batch")):
        for activation in ("relu", "tanh", "linear"):
            axes = {"norm": norm, "activation": activation}
            for seed in range(2):
                lost = norm == "none" and (activation, seed) in diverged
                write_run(
                    tmp_path, "plain-20", seed, 0.01 + 0.1 * index,
                    name="-".join([*axes.values(), str(seed)]),
                    status="diverged" if lost else "completed", **axes,
                )  # fmt: skip
    axes = drawn(tmp_path)
    said = {text.get_position()[1]: text.get_text() for text in axes.texts if text.get_text()}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert {names[row]: words for row, words in said.items()} == {
        "plain, relu, norm=none": "20 layers: 1 of 2 diverged",
        "plain, tanh, norm=none": "20 layers: 2 of 2 diverged",
    }
    assert set(said) == {0, 1}


def test_two_networks_of_one_family_and_depth_have_rows_of_their_own(tmp_path: Path, write_run):
    for index, model in enumerate(("resnet-50", "cifar-resnet-50")):
        write_run(tmp_path, model, 0, 0.1 + 0.4 * index)
    etas = [0.8 + 0.01 * place for place in range(4)]
    for eta in etas:
        write_run(tmp_path, "plain-20", 0, 0.2, name=str(eta), norm="none", tat_eta=eta,
                  activation="tailored_relu", initialization="delta_orthogonal")  # fmt: skip
    names = [label.get_text() for label in drawn(tmp_path).get_yticklabels()]
    assert len(set(names)) == len(names) == 6
    assert {"resnet-50", "cifar-resnet-50"} <= set(names)
