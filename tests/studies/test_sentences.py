"""Findings follow from the numbers, and say no where the numbers do."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from resnet_jax.reporting import style
from resnet_jax.studies import (
    gradients,
    growth,
    identity_construction,
    iterations,
    jacobian,
    landscape,
    lesions,
    responses,
    shattering,
    shortcuts,
    tables,
)
from resnet_jax.studies.landscape import trajectory

PLAIN = {"network": "plain-56", "family": "plain", "depth": 56, "step": 0, "seed": 0}
TWIN = {"network": "resnet-56", "family": "residual", "depth": 56, "step": 0, "seed": 0}


def said(study, data):
    """The finding; the figure must be drawable too."""
    table = pd.DataFrame(data)
    with style.drawing_settings():
        svg = style.to_svg(style.draw_all(study.plot(table)))
    assert "<svg" in svg
    return " ".join(study.summarize(table))


def seeds(data, count=5, spread=0.0, column=None):
    """The same rows of several seeds, of which a column differs by some factor."""
    return [
        {**row, "seed": seed, **({column: row[column] * (1 + spread * seed)} if column else {})}
        for seed in range(count) for row in data
    ]  # fmt: skip


def chain(about, norms, column="gradient"):
    common = {"activation": 1.0, "gradient": 1.0, "weight_gradient": 1.0}
    common |= {"image_size": 32, "map_size": 8, "begins": "at initialisation"}
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
        ([1.0, 5e3, 1.0], "explode in the middle: .* ×1 over .* and on the way by up to ×5,000"),
        ([1.0, 1e-4, 1.0], "vanish in the middle: .* ×1 over .* and on the way by up to ×0.0001"),
    ],
)
def test_gradients_vanish_explode_or_neither(norms, words):
    assert re.search(words, said(gradients, chain(PLAIN, norms)))


def test_that_no_gradient_vanished_is_said_of_trained_plain_nets_with_their_steps():
    untrained = chain(PLAIN, [1.0, 1.0])
    assert "looked at" not in said(gradients, untrained)
    trained = untrained + chain({**PLAIN, "step": 99}, [1.0, 1.0])
    healthy = "In plain-56, looked at after 0 and 99 steps, gradients vanish after none of them."
    assert healthy in said(gradients, trained)
    between = chain({**PLAIN, "step": 50}, [1e-9, 1.0])
    finding = said(gradients, trained + between)
    assert "at step 50: gradients vanish" in finding
    assert "plain-56, looked at after 0, 50 and 99 steps, gradients vanish after 50." in finding


def test_gradients_that_are_not_finite_are_not_called_vanishing():
    trained = chain({**PLAIN, "step": 99}, [float("inf"), 1.0])
    finding = said(gradients, trained)
    assert "looked at after 99 steps, gradients are zero or not finite after 99." in finding


def test_gradients_that_vanish_in_the_middle_of_one_seed_are_told():
    trained = chain({**PLAIN, "step": 99}, [0.5, 0.5, 1.0])
    faded = [{**row, "seed": 1} for row in chain({**PLAIN, "step": 99}, [0.5, 1e-4, 1.0])]
    finding = said(gradients, trained + faded)
    assert "neither vanish nor explode in 1 and vanish in the middle in 1 of 2 seeds" in finding
    assert "looked at after 99 steps, gradients vanish after 99 in some seed." in finding


def test_finding_on_small_images_says_so_and_how_to_look_at_larger_ones():
    small = [{**row, "image_size": 8, "map_size": 2} for row in chain(PLAIN, [1e-6, 1.0])]
    finding = said(gradients, small)
    assert "plain-56 (one seed, 8×8 images) at initialisation: gradients vanish" in finding
    assert "2×2 maps a 3×3 kernel has 4 of its 9 taps inside" in finding
    assert "taps" not in said(gradients, chain(PLAIN, [1e-6, 1.0]))


def test_weights_that_were_given_are_not_called_initial():
    data = [{**row, "begins": "as converted"} for row in chain(PLAIN, [1.0, 1.0])]
    assert "plain-56 (one seed, 32×32 images) as converted: gradients" in said(gradients, data)


def test_each_state_counts_the_seeds_that_were_looked_at_there():
    start = seeds(chain(PLAIN, [1.0, 1.0]), count=3)
    finding = said(gradients, start + chain({**PLAIN, "step": 40}, [1.0, 1.0]))
    assert "plain-56 (3 seeds, 32×32 images) at initialisation" in finding
    assert "plain-56 (one seed, 32×32 images) at step 40" in finding


def test_seeds_of_a_network_are_one_statement_with_an_interval():
    data = seeds(chain(PLAIN, [1e-6, 1.0])) + seeds(chain(TWIN, [1.0, 1.0]), count=3)
    finding = said(gradients, data)
    assert "plain-56 (5 seeds, 32×32 images)" in finding
    assert "×1e-06 [1e-06, 1e-06]" in finding
    assert "resnet-56 (3 seeds" in finding


def heard(about, std):
    return [{**about, "layer": place, "std": std} for place in (1, 2)]


@pytest.mark.parametrize(
    ("std", "words"),
    [(0.5, "layers respond less than"), (1.0, "is undecided"), (2.0, "layers respond more than")],
)
def test_residual_responses_are_compared_with_the_plain_twins_over_five_seeds(std, words):
    data = seeds(heard(PLAIN, 1.0), spread=0.01, column="std")
    data += seeds(heard(TWIN, std), spread=0.01, column="std")
    assert words in said(responses, data)


@pytest.mark.parametrize("count", [1, 4])
def test_responses_of_fewer_seeds_are_told_and_not_compared(count):
    data = seeds(heard(PLAIN, 1.0), count) + seeds(heard(TWIN, 2.0), count)
    finding = said(responses, data)
    assert "plain-56 1.00" in finding
    assert "resnet-56 2.00" in finding
    assert "respond more than" not in finding
    assert "stays open of resnet-56 and plain-56" in finding


def built(difference=1e-5, ends=0.1, scratch=0.6, augmented=0.0, control=0.1):
    """`augmented` is what cropping its batches adds to an error."""
    about = {**PLAIN, "from": "plain-20", "from_step": 300}
    sizes = {"logits_difference": difference, "logits_size": 10.0, "loss": 1.0, "error": 0.1}
    evaluated = {**about, "kind": "evaluated", "at_step": 300, **sizes}
    data = [{**evaluated, "start": start} for start in ("shallow", "constructed")]
    training = {**about, "kind": "training", "loss": 1.0}
    for start, steps, error in (
        ("constructed", (350, 400), ends),
        ("shallow", (350, 400), control),
        ("scratch", (200, 400), scratch),
    ):
        data += [
            {**training, "start": start, "at_step": at, "error": error + augmented} for at in steps
        ]
        data.append({**evaluated, "start": start, "at_step": 400, "error": error})
    return data


@pytest.mark.parametrize(
    ("difference", "words"), [(1e-5, "computes what"), (1.0, "does not compute what")]
)
def test_constructed_network_is_as_good_or_is_said_not_to_be(difference, words):
    finding = said(identity_construction, built(difference))
    assert f"{words} it does" in finding
    assert "for 100 steps, 400 with those of plain-20, it" in finding
    assert "from scratch for 400 steps" in finding


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (0.3, "training leaves the solution"),
        (0.105, "training stays at the solution"),
        (0.05, "training improves on the solution"),
    ],
)
@pytest.mark.parametrize("augmented", [0.0, 0.2])
def test_training_leaves_the_constructed_solution_or_stays(ends, words, augmented):
    finding = said(identity_construction, built(ends=ends, augmented=augmented))
    assert words in finding
    assert f"it has an error of {100 * ends:.1f}% on the same images" in finding


@pytest.mark.parametrize(
    ("ends", "scratch", "words"),
    [
        (0.1, 0.6, "reaches neither the constructed solution nor this"),
        (0.1, 0.105, "reaches the constructed solution, so nothing shows"),
        (0.01, 0.05, "reaches the constructed solution, so nothing shows"),
        (0.3, 0.3, "does not reach the constructed solution, but does as well as training that"),
    ],
)
def test_scratch_is_compared_with_the_constructed_network_over_five_seeds(ends, scratch, words):
    finding = said(identity_construction, seeds(built(ends=ends, scratch=scratch)))
    assert "(step 300, 5 seeds)" in finding
    assert words in finding


@pytest.mark.parametrize(
    ("ends", "control", "words"),
    [
        (0.3, 0.1, "of 10.0% [10.0%, 10.0%] there: depth loses more, by 20.0"),
        (0.3, 0.3, "depth loses no more, 0.0"),
        (0.35, 0.34, "depth loses more is undecided"),
    ],
)
def test_built_network_is_set_beside_the_shallow_one_trained_on_alike(ends, control, words):
    spread = 0.1 if "undecided" in words else 1e-9
    data = seeds(built(ends=ends, control=control), spread=spread, column="error")
    finding = said(identity_construction, data)
    assert "Trained on in the same way, plain-20 itself has an error" in finding
    assert words in finding
    assert "not judged with less than 5 seeds" in said(identity_construction, built())


def test_scratch_of_one_seed_is_told_and_not_judged():
    finding = said(identity_construction, built())
    assert "does not reach the constructed solution in 1 of 1 seed." in finding
    assert "hard to find" not in finding


def test_nothing_is_said_of_a_network_that_was_not_trained_from_scratch():
    data = [row for row in built() if row["start"] != "scratch"]
    finding = said(identity_construction, data)
    assert "training stays at the solution" in finding
    assert "from scratch" not in finding


@pytest.mark.parametrize(("starts", "first"), [(("scratch",), 0), ((), 300)])
def test_constructed_networks_curve_fills_its_panel(starts, first):
    drawn = ("constructed", "shallow", *starts)
    table = pd.DataFrame([row for row in built() if row["start"] in drawn])
    figure = style.draw_all(identity_construction.plot(table))
    assert figure.axes[0].get_xlim() == (first, 400)


def grown(name, dose, error, status="diverged"):
    """`status` is that of runs without an error."""
    row = {**PLAIN, "network": name, "growth": dose, "train_error": error}
    return seeds([{**row, "status": status if error is None else ""}], 3)


def test_dose_and_response_are_correlated_and_their_spread_at_one_dose_is_told():
    data = [row for at in range(4) for row in grown(f"plain-{at}", 1.04 + at / 25, at / 10)]
    assert "correlation" not in said(growth, data)
    finding = said(growth, [*data, *grown("plain, warmup=linear", 1.161, 0.05)])
    assert "plain-1 (3 seeds): the first update grows by ×1.080" in finding
    assert (
        "Over 5 networks the rank correlation of growth and error is 0.56 (95% interval" in finding
    )
    assert (
        "2 of them start with one growth, ×1.16 a layer, and end between 5.0% "
        "(plain, warmup=linear) and 30.0% (plain-3)." in finding
    )
    assert "none (diverged)" in said(growth, grown("plain-56", 1.2, None))
    survivor = [
        *grown("plain-56, norm=none", 1.2, None)[:2],
        *grown("plain-56, norm=none", 1.2, 0.1)[2:],
    ]
    finding = said(growth, [*data, *grown("plain, warmup=linear", 1.161, 0.05), *survivor])
    assert "Over 5 networks" in finding
    assert "), without plain-56, norm=none, of which a run diverged." in finding


def test_run_that_is_not_finished_is_not_said_to_have_diverged():
    data = [row for at in range(5) for row in grown(f"plain-{at}", 1.04 + at / 25, at / 10)]
    started = grown("plain-56", 1.2, None, "not finished")
    assert "none (not finished)" in said(growth, started)
    assert ", without plain-56, of which a run is not finished." in said(growth, data + started)


def lengths(name, depth, *ends, count=5):
    about = {**PLAIN, "network": name, "settings": "", "depth": depth}
    return [
        {**about, "num_steps": steps, "seed": seed, "final_train_error": error + 0.001 * seed,
         "final_test_error": error, "split": "train", "at_step": step, "error": error}
        for steps, error in ends for seed in range(count) for step in (steps // 2, steps)
    ]  # fmt: skip


@pytest.mark.parametrize(("long", "words"), [(0.5, "does not cure"), (0.01, "cures it")])
def test_longer_training_cures_or_does_not(long, words):
    data = lengths("plain-20", 20, (300, 0.05), (900, 0.01))
    data += lengths("plain-56", 56, (300, 0.6), (900, long))
    finding = said(iterations, data)
    assert words in finding
    assert "plain-56 is 55.0 points above plain-20 after 300 steps" in finding
    assert "nothing can be said" in said(iterations, data[:2])


def test_deep_network_is_compared_with_the_shallow_one_that_trained_as_long():
    """As good as the shallow one of a third of the steps is no cure."""
    data = lengths("plain-20", 20, (300, 0.05), (900, 0.01))
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.05))
    assert "longer training does not cure it" in said(iterations, data)


def test_errors_after_different_numbers_of_steps_are_no_gap():
    data = lengths("plain-20", 20, (100, 0.3), (300, 0.045))
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.05))
    finding = said(iterations, data)
    assert "is 55.5 points above plain-20 after 300 steps and 0.5 points above plain-20" in finding
    assert "after 900 steps against 300 (" in finding
    assert "whether longer training cures it is undecided" in finding
    assert "cures it." not in finding
    data = lengths("plain-20", 20, (900, 0.02), (2700, 0.01))
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.025))
    assert "plain-56 is 0.5 points above plain-20 after 900 steps (" in said(iterations, data)
    data = lengths("plain-20", 20, (2700, 0.01))
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.05))
    assert "cannot be compared" in said(iterations, data)


def test_shallow_network_that_did_better_in_fewer_steps_shows_that_there_is_no_cure():
    data = lengths("plain-20", 20, (300, 0.05))
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.5))
    assert "45.0 points above plain-20 after 900 steps against 300 (" in said(iterations, data)
    assert "longer training does not cure it" in said(iterations, data)


def test_deep_network_is_not_compared_with_a_shallow_one_of_other_settings():
    name = "plain-20, dataset=cifar10"
    other = lengths(name, 20, (300, 0.05), (900, 0.01))
    other = [{**row, "settings": "dataset=cifar10"} for row in other]
    finding = said(iterations, other + lengths("plain-56", 56, (300, 0.6), (900, 0.5)))
    assert "No shallower network has the settings of plain-56 to compare it with." in finding
    assert "points above" not in finding


def test_lengths_of_one_seed_are_told_and_not_judged():
    data = lengths("plain-20", 20, (300, 0.05), (900, 0.01), count=1)
    data += lengths("plain-56", 56, (300, 0.6), (900, 0.5), count=1)
    assert "is undecided: one seed, 5 of each are needed" in said(iterations, data)


def test_lesions_destroy_or_do_not():
    def net(about, deleted):
        about = {**about, "classes": 10}
        return [
            {**about, "kind": "intact", "error": 0.1},
            *({**about, "kind": "delete_each", "block": unit, "error": deleted} for unit in (1, 2)),
            *({**about, "kind": "delete", "count": n, "repeat": 0, "error": min(n * deleted, 0.9)}
              for n in (1, 2)),
        ]  # fmt: skip

    path = {**TWIN, "classes": 10, "kind": "path"}
    paths = [
        {**path, "length": length, "share_of_paths": 0.5, "share": share, "norm": 0.8, "rest": rest}
        for length, (share, rest) in enumerate(((0.7, 0.3), (0.4, 0.04), (-0.1, 0.0)))
    ]
    finding = said(lesions, net(PLAIN, 0.9) + net(TWIN, 0.12) + paths)
    assert "Deleting one block destroys plain-56" in finding
    assert "Deleting one block does not destroy resnet-56" in finding
    assert "plain-56 is past half-way to chance from the first deleted block on" in finding
    assert "resnet-56 never gets half-way to chance" in finding
    assert "paths through at most 1 sum to the gradient" in finding
    assert "paths are 0.2 blocks long, where the mean of all 2^2 is 1.0" in finding
    assert "add up to 2.4 times the whole's" in finding


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.8, 0.2, 0.8, 0.9), "is past half-way to chance from 3 deleted blocks on"),
        ((0.2, 0.8, 0.9, 0.2), "does not stay past half-way to chance"),
        ((0.1, 0.2, 0.3, 0.4), "never gets half-way to chance"),
    ],
)
def test_half_way_to_chance_counts_from_where_all_larger_lesions_are_past_it(errors, words):
    about = {**TWIN, "classes": 10}
    data = [{**about, "kind": "intact", "error": 0.0}]
    data += [{**about, "kind": "delete_each", "block": unit, "error": 0.1} for unit in (1, 2)]
    data += [
        {**about, "kind": "delete", "count": units, "repeat": 0, "error": error}
        for units, error in enumerate(errors, start=1)
    ]
    assert f"resnet-56 {words}" in said(lesions, data)


def valley(about, steepness, error=0.0):
    grid = (-1.0, -0.5, 0.0, 0.5, 1.0)
    return [
        {**about, "kind": "surface", "x": x, "y": y, "error": error, "seed": seed,
         "loss": 0.1 + steepness * (1 + 0.1 * seed) * (x * x + y * y)}
        for seed in range(5) for y in grid for x in grid
    ]  # fmt: skip


def test_landscapes_valleys_are_compared_over_five_seeds():
    finding = said(landscape, valley(PLAIN, 10.0) + valley(TWIN, 0.1))
    assert "resnet-56's valley is wider than plain-56's" in finding
    assert "curves downwards at 0.0%" in finding
    assert "is narrower than" in said(landscape, valley(PLAIN, 0.1) + valley(TWIN, 10.0))
    assert "is undecided" in said(landscape, valley(PLAIN, 1.0) + valley(TWIN, 1.0))
    one = [row for row in valley(PLAIN, 10.0) + valley(TWIN, 0.1) if row["seed"] == 0]
    assert "stays open" in said(landscape, one)
    broken = valley(PLAIN, 1.0)
    broken[0]["loss"] = float("nan")
    assert "0.8% of its points overflow" in said(landscape, broken)


def test_network_that_has_not_fitted_has_no_valley_to_compare():
    finding = said(landscape, valley(PLAIN, 10.0, error=0.6) + valley(TWIN, 0.1))
    assert "plain-56 has not fitted the images (error 60.0%)" in finding
    assert "wider" not in finding


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
        "hold 90.0%; of a random walk at the same steps, 91.4%."
    )
    assert words in said(landscape, surface + way)


@pytest.mark.parametrize("kept", [range(7), (0, 62, 63, 64)], ids=str)
def test_random_walk_holds_what_one_drawn_at_random_does(kept):
    steps = np.random.default_rng(0).normal(size=(max(kept), 100, 100))
    walk = np.cumsum([np.zeros((100, 100)), *steps], axis=0)
    drawn = trajectory([{"kernel": walk[step]} for step in kept]).explained.sum()
    assert landscape.held_of_random_walk(kept) == pytest.approx(drawn, abs=0.01)


def test_jacobian_is_an_isometry_or_not():
    def net(values):
        return [
            {**PLAIN, "layer": layer, "place": place, "value": value, "rms": 1.0, "exact": 1}
            for layer in (3, 5) for place, value in enumerate(values, 1)
        ]  # fmt: skip

    assert "an isometry on what it keeps" in said(jacobian, net([1.0, 1.0]))
    assert "plain-56 (step 0, one seed, at one image): " in said(jacobian, net([1.0, 1.0]))
    assert "no isometry" in said(jacobian, net([10.0, 0.1]))
    assert "50.0% are not zero (in float64)" in said(jacobian, net([1.0, 0.0]))
    assert "all are not zero (in float64), the largest 1e+07 times" in said(
        jacobian, net([1.0, 1e-7])
    )
    nothing = [{**row, "rms": 0.0} for row in net([0.0, 0.0])]
    assert "nothing of the input arrives" in said(jacobian, nothing)


def shattered(about, *values, noise=0.002, count=5):
    common = {"unrelated": 0.0, "nearby_inputs": 0.99, "unrelated_inputs": 0.0}
    return [
        {**about, **common, "depth": depth, "nearby": value + noise * (seed - 2), "seed": seed}
        for depth, value in zip((8, 20, 32, 56), values, strict=False) for seed in range(count)
    ]  # fmt: skip


def test_gradients_shatter_or_do_not():
    finding = said(shattering, shattered(PLAIN, 0.8, 0.4, 0.1) + shattered(TWIN, 0.8, 0.7, 0.6))
    plain, twin = finding.split("resnet-56 (5 seeds): ")
    assert "with depth they shatter" in plain
    assert "do not shatter" in twin
    assert "0.80 ± 0.00 at 8 layers" in plain


def test_seeds_are_those_of_a_depth_and_not_of_all_together():
    data = shattered(PLAIN, 0.8, 0.4, 0.1)
    own = [{**row, "seed": 5 * (row["depth"] > 8) + row["seed"]} for row in data]
    assert "plain-56 (5 seeds): 0.80" in said(shattering, own)
    assert "plain-56 (4 to 5 seeds): 0.80" in said(shattering, own[:-1])


def test_one_seed_shatters_nothing():
    finding = said(shattering, shattered(PLAIN, 0.8, 0.4, 0.1, count=1))
    assert "no verdict from fewer than 5 seeds" in finding


def test_slopes_are_of_the_depths_at_which_every_familys_correlation_is_told_from_zero():
    """At 56 layers the plain network's is positive, but zero within two standard errors."""
    noisy = (0.027, 0.007, -0.024, -0.004, 0.016)
    plain = shattered(PLAIN, 0.8, 0.4, 0.2, 0.0)
    for row, value in zip(plain[-5:], noisy, strict=True):
        row["nearby"] = value
    finding = said(shattering, plain + shattered(TWIN, 0.8, 0.4, 0.2, 0.2))
    assert finding.count("from 8 to 32 layers ×0.944 [") == 2
    assert "not told from zero at 56 layers" in finding


def test_no_verdict_where_the_shallowest_network_has_lost_the_correlation_already():
    finding = said(shattering, shattered(PLAIN, 0.02, 0.03, 0.01))
    assert finding.endswith(": near zero already at 8 layers.")


@pytest.mark.parametrize(
    ("measured", "words"), [(0.5**27, "vanishes"), (1.0, "carry it"), (2.0**27, "explodes")]
)
def test_product_of_shortcuts_vanishes_explodes_or_carries(measured, words):
    data = [
        {**TWIN, "passed": passed, "block": 1, "factor": 1.0, "measured": measured ** (passed / 27),
         "predicted": measured, "not_counted": ""} for passed in (1, 27)
    ]  # fmt: skip
    assert words in said(shortcuts, data)
    assert "not counting" not in said(shortcuts, data)
    counted = [{**row, "not_counted": "the ReLU after each addition"} for row in data]
    assert "27 shortcuts, not counting the ReLU after each addition, a gradient's norm" in said(
        shortcuts, counted
    )


def test_more_than_two_networks_of_a_family_differ_in_colour():
    data = [{**PLAIN, "network": f"plain-{depth}", "depth": depth} for depth in (20, 32, 56)]
    assert len({look.colour for look in tables.looks(pd.DataFrame(data)).values()}) == 3


def test_long_names_keep_what_tells_them_apart():
    names = [f"plain-56, activation=sigmoid, norm={norm}" for norm in ("batch", "none")]
    data = [{**PLAIN, "network": name} for name in names]
    labels = [look.label for look in tables.looks(pd.DataFrame(data)).values()]
    assert labels == ["sigmoid, norm=batch", "sigmoid, norm=none"]


def test_pairs_differ_in_depth_or_family_alone():
    names = ("plain-20", "plain-56", "resnet-20", "resnet-20, learning_rate=0.01", "resnet-56")
    rows = [
        {"network": name, "depth": int(name.split("-")[1][:2]), "family": name.split("-")[0]}
        for name in names
    ]
    table = pd.DataFrame(rows)
    assert tables.pairs_by_family(table) == [("plain-20", "plain-56"), ("resnet-20", "resnet-56")]
    assert tables.twins(table) == [("plain-20", "resnet-20"), ("plain-56", "resnet-56")]


def test_interval_of_a_fraction_ends_at_0_and_1():
    assert tables.mean([0.0, 0.2]).percent == "10.0% [0.0%, 100.0%]"
    assert tables.mean([0.1]).percent == "10.0%"


def test_data_have_every_column_that_a_row_has(tmp_path):
    table = pd.DataFrame([{"network": "a", "x": 1}, {"network": "b, c", "y": 0.123456789}])
    tables.write_data(tmp_path, table)
    tables.write(tmp_path, [[style.Panel("", lambda axes: None)]], ["So."], ["Thus."])
    with (tmp_path / "data.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"network": "a", "x": "1", "y": ""},
            {"network": "b, c", "x": "", "y": "0.12345679"},
        ]
    assert (tmp_path / "finding.md").read_text() == "So.\n\nThus.\n"
