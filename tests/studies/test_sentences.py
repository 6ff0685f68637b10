"""Findings follow from the numbers, and say no where the numbers do."""

import csv
import io
import re

import numpy as np
import pytest

from resnet_jax.reporting import plots
from resnet_jax.reporting.studies import (
    constructed,
    gradients,
    iterations,
    jacobian,
    landscape,
    lesions,
    responses,
    rows,
    shattering,
    shortcuts,
    write,
)
from resnet_jax.studies.landscape import trajectory

PLAIN = {"net": "plain-56", "family": "plain", "depth": 56, "step": 0}
TWIN = {"net": "resnet-56", "family": "residual", "depth": 56, "step": 0}


def said(presentation, data):
    """The finding; the figure must be drawable too."""
    with plots.drawing_settings():
        svg = plots.to_svg(plots.draw_all(presentation.panels(data)))
    assert "<svg" in svg
    return " ".join(presentation.find(data))


def chain(about, norms, column="gradient"):
    common = {"activation": 1.0, "gradient": 1.0, "weight_gradient": 1.0}
    return [
        {**about, **common, "layer": 3 + 2 * place, column: norm}
        for place, norm in enumerate(norms)
    ]


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([1e-6, 1e-3, 1.0], "gradients vanish: .* ×1e-06 over 4 layers, ×0.0316 a layer"),
        ([1.0, 1.0, 1.0], "gradients neither vanish nor explode"),
        ([1e4, 1e2, 1.0], "gradients explode"),
        ([0.0, 1e-3, 1.0], "gradients vanish: .* ×0.001 over 2 layers, .* too small for a float"),
        ([0.0, 0.0, 0.0], "nothing arrives"),
        ([float("nan"), 1.0, 1.0], "nothing arrives"),
    ],
)
def test_gradients_vanish_explode_or_neither(norms, words):
    assert re.search(words, said(gradients, chain(PLAIN, norms)))


def test_that_no_gradient_vanished_is_said_of_trained_plain_nets_with_their_steps():
    untrained = chain(PLAIN, [1.0, 1.0])
    assert "no vanishing" not in said(gradients, untrained)
    trained = untrained + chain({**PLAIN, "step": 99}, [1.0, 1.0])
    assert "At steps 0 and 99 no vanishing was seen in plain-56." in said(gradients, trained)
    between = chain({**PLAIN, "step": 50}, [1e-9, 1.0])
    finding = said(gradients, trained + between)
    assert "at step 50: gradients vanish" in finding
    assert "no vanishing" not in finding


@pytest.mark.parametrize(
    ("std", "words"), [(0.5, "less than"), (0.99, "about as strongly as"), (2.0, "more than")]
)
def test_residual_responses_are_compared_with_the_plain_twins(std, words):
    data = [{**PLAIN, "layer": place, "std": 1.0} for place in (1, 2)]
    data += [{**TWIN, "layer": place, "std": std} for place in (1, 2)]
    assert f"resnet-56's layers respond {words} plain-56's" in said(responses, data)


@pytest.mark.parametrize(
    ("difference", "scratch", "same", "meaning"),
    [
        (1e-5, 0.6, "computes what", "does not reach it in as many"),
        (1.0, 0.6, "does not compute what", "does not reach it in as many"),
        (1e-5, 0.12, "computes what", "does not reach it in as many"),
        (1e-5, 0.105, "computes what", "does as well"),
    ],
)
def test_constructed_net_is_as_good_or_is_said_not_to_be(difference, scratch, same, meaning):
    about = {**PLAIN, "from": "plain-20", "from_step": 300}
    sizes = {"logits_difference": difference, "logits_size": 10.0, "loss": 1.0, "error": 0.1}
    evaluated = {**about, "kind": "evaluated", "at_step": 300, **sizes}
    data = [{**evaluated, "start": start} for start in ("shallow", "constructed")]
    training = {**about, "kind": "training", "loss": 1.0}
    for start, steps, error in (
        ("constructed", (350, 400), 0.1),
        ("scratch", (200, 400), scratch),
    ):
        data += [{**training, "start": start, "at_step": at, "error": error} for at in steps]
    finding = said(constructed, data)
    assert f"{same} it does" in finding
    assert "for 100 steps, 400 with those of plain-20, it" in finding
    assert "from scratch for 400 steps" in finding
    assert meaning in finding


@pytest.mark.parametrize(("long", "words"), [(0.5, "does not cure"), (0.05, "cures it")])
def test_longer_training_cures_or_does_not(long, words):
    def run(name, depth, steps, error):
        about = {"net": name, "model": name, "settings": "", "family": "plain", "depth": depth,
                 "step": steps}  # fmt: skip
        final = {"num_steps": steps, "seed": 0, "final_train_error": error,
                 "final_test_error": error}  # fmt: skip
        return [
            {**about, **final, "split": "train", "at_step": step, "error": error}
            for step in (steps // 2, steps)
        ]

    data = run("plain-20", 20, 300, 0.05) + run("plain-56", 56, 300, 0.6)
    data += run("plain-56", 56, 900, long)
    assert words in said(iterations, data)
    assert "nothing can be said" in said(iterations, data[:2])


def test_lesions_destroy_or_do_not():
    def net(about, deleted):
        about = {**about, "classes": 10}
        return [
            {**about, "kind": "intact", "error": 0.1},
            *({**about, "kind": "delete_each", "unit": unit, "error": deleted} for unit in (1, 2)),
            *({**about, "kind": "delete", "units": n, "repeat": 0, "error": min(n * deleted, 0.9)}
              for n in (1, 2)),
        ]  # fmt: skip

    path = {**TWIN, "classes": 10, "kind": "path"}
    paths = [
        {**path, "length": length, "share": share, "gradient": 0.1**length}
        for length, share in enumerate((0.25, 0.5, 0.25))
    ]
    finding = said(lesions, net(PLAIN, 0.9) + net(TWIN, 0.12) + paths)
    assert "Deleting one unit destroys plain-56" in finding
    assert "Deleting one unit does not destroy resnet-56" in finding
    assert "plain-56 is past half-way to chance from the first deleted unit on" in finding
    assert "resnet-56 never gets half-way to chance" in finding
    assert "paths of 0 to 1 of 2 units; 95% of its paths have 0 to 2." in finding


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.8, 0.2, 0.8, 0.9), "is past half-way to chance from 3 deleted units on"),
        ((0.2, 0.8, 0.9, 0.2), "does not stay past half-way to chance"),
        ((0.1, 0.2, 0.3, 0.4), "never gets half-way to chance"),
    ],
)
def test_half_way_to_chance_counts_from_where_all_larger_lesions_are_past_it(errors, words):
    about = {**TWIN, "classes": 10}
    data = [{**about, "kind": "intact", "error": 0.0}]
    data += [{**about, "kind": "delete_each", "unit": unit, "error": 0.1} for unit in (1, 2)]
    data += [
        {**about, "kind": "delete", "units": units, "repeat": 0, "error": error}
        for units, error in enumerate(errors, start=1)
    ]
    assert f"resnet-56 {words}" in said(lesions, data)


def test_landscapes_valleys_are_compared():
    def net(about, steepness):
        grid = (-1.0, -0.5, 0.0, 0.5, 1.0)
        return [
            {**about, "kind": "surface", "x": x, "y": y, "error": 0.5,
             "loss": 0.1 + steepness * (x * x + y * y)} for y in grid for x in grid
        ]  # fmt: skip

    finding = said(landscape, net(PLAIN, 10.0) + net(TWIN, 0.1))
    assert "resnet-56's valley is wider than plain-56's" in finding
    assert "curves downwards at 0.0%" in finding
    assert "is narrower than" in said(landscape, net(PLAIN, 0.1) + net(TWIN, 10.0))
    assert "is about as wide as" in said(landscape, net(PLAIN, 1.0) + net(TWIN, 1.1))
    broken = net(PLAIN, 1.0)
    broken[0]["loss"] = float("nan")
    assert "4.0% of its points overflow" in said(landscape, broken)


def test_way_of_training_is_told_beside_a_random_walk():
    surface = [
        {**PLAIN, "kind": "surface", "x": x, "y": y, "error": 0.5, "loss": 1.0}
        for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)
    ]  # fmt: skip
    way = [
        {**PLAIN, "kind": "trajectory", "at_step": step, "x": 300.0 - step, "y": 1.0,
         "explained_x": 0.8, "explained_y": 0.1} for step in range(0, 350, 50)
    ]  # fmt: skip
    words = (
        "Of the squared distances of plain-56's 6 earlier weights from the last, two directions "
        "hold 90.0%; of a random walk of as many equal steps, 91.4%."
    )
    assert words in said(landscape, surface + way)


def test_random_walk_holds_what_one_drawn_at_random_does():
    steps = np.random.default_rng(0).normal(size=(6, 100, 100))
    walk = [{"kernel": weights} for weights in np.cumsum([np.zeros((100, 100)), *steps], axis=0)]
    drawn = trajectory(walk).explained.sum()
    assert landscape.held_of_random_walk(7) == pytest.approx(drawn, abs=0.01)


def test_jacobian_is_an_isometry_or_not():
    def net(values):
        return [
            {**PLAIN, "layer": layer, "place": place, "value": value, "rms": 1.0, "exact": 1}
            for layer in (3, 5) for place, value in enumerate(values, 1)
        ]  # fmt: skip

    assert "an isometry on what it keeps" in said(jacobian, net([1.0, 1.0]))
    assert "no isometry" in said(jacobian, net([10.0, 0.1]))
    assert "50.0% are not zero" in said(jacobian, net([1.0, 0.0]))
    nothing = [{**row, "rms": 0.0} for row in net([0.0, 0.0])]
    assert "nothing of the input arrives" in said(jacobian, nothing)


def shattered(about, *values):
    common = {"unrelated": 0.0, "nearby_inputs": 0.99, "unrelated_inputs": 0.0}
    return [
        {**about, **common, "depth": depth, "nearby": value}
        for depth, value in zip((8, 20, 32, 56), values, strict=False)
    ]


def test_gradients_shatter_or_do_not():
    finding = said(shattering, shattered(PLAIN, 0.8, 0.4, 0.1) + shattered(TWIN, 0.8, 0.7, 0.6))
    plain, twin = finding.split("resnet-56: ")
    assert "with depth they shatter" in plain
    assert "do not shatter" in twin


def test_families_rates_are_of_the_depths_at_which_no_familys_correlation_is_lost():
    plain = shattered(PLAIN, 0.8, 0.4, 0.2, -0.1)
    twin = shattered(TWIN, 0.8, 0.4, 0.2, 0.2)
    finding = said(shattering, plain + twin)
    assert finding.count("from 8 to 32 layers ×0.944 a layer") == 2


def test_no_verdict_where_the_shallowest_net_has_lost_the_correlation_already():
    finding = said(shattering, shattered(PLAIN, 0.02, 0.03, 0.01))
    assert finding.endswith(": near zero already at 8 layers.")


@pytest.mark.parametrize(
    ("measured", "words"), [(0.5**27, "vanishes"), (1.0, "carry it"), (2.0**27, "explodes")]
)
def test_product_of_shortcuts_vanishes_explodes_or_carries(measured, words):
    data = [
        {**TWIN, "passed": passed, "unit": 1, "factor": 1.0, "measured": measured ** (passed / 27),
         "predicted": measured, "not_counted": ""} for passed in (1, 27)
    ]  # fmt: skip
    assert words in said(shortcuts, data)
    assert "not counting" not in said(shortcuts, data)
    counted = [{**row, "not_counted": "the ReLU after each addition"} for row in data]
    assert "27 shortcuts, not counting the ReLU after each addition, a gradient's norm" in said(
        shortcuts, counted
    )


def test_more_than_two_nets_of_a_family_differ_in_colour():
    data = [{**PLAIN, "net": f"plain-{depth}", "depth": depth} for depth in (20, 32, 56)]
    assert len({look.colour for look in rows.looks(data).values()}) == 3


def test_long_names_keep_what_tells_them_apart():
    names = [f"plain-56, activation=sigmoid, norm={norm}" for norm in ("batch", "none")]
    data = [{**PLAIN, "net": name} for name in names]
    labels = [look.label for look in rows.looks(data).values()]
    assert labels == ["sigmoid, batch", "sigmoid, none"]


def test_data_have_every_column_that_a_row_has():
    text = write.to_csv([{"net": "a", "x": 1}, {"net": "b, c", "y": 0.123456789}])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"net": "a", "x": "1", "y": ""},
        {"net": "b, c", "x": "", "y": "0.12345679"},
    ]
