"""The product of shortcut factors is what v2 §3 says."""

import numpy as np
import pytest
from nets import IMAGES, LABELS, make

from configs import cifar10, digits
from resnet_jax.errors import InputError
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.runs import Recipe
from resnet_jax.studies import networks, shortcuts
from resnet_jax.training.schedules import Schedule


def test_variants_leave_out_what_another_shortcut_needed():
    axes = "model.shortcut=exclusive_gating,model.gate_bias=-3.0,model.option_a_padding=both"
    recipe = Recipe.from_config(digits.get_config(f"resnet-8,{axes}"))
    (network,) = networks.collect([], [recipe])
    made = [network.variant(**axes).recipe.architecture for axes in shortcuts.V2_TABLE_1]
    assert [net.gate_bias for net in made] == [0, 0, -6, 0, -6, 0, 0]
    assert [net.option_a_padding for net in made] == [*["both"] * 5, "end", "both"]
    assert network.variant(width=4).recipe.architecture.gate_bias == -3


@pytest.mark.parametrize("boundaries", ["(0.5,0.7)", "(150,210)"])
def test_longer_run_drops_its_rate_at_the_same_shares(boundaries):
    recipe = Recipe.from_config(
        digits.get_config(f"plain-8,num_steps=300,schedule.boundaries={boundaries}")
    )
    (network,) = networks.collect([], [recipe])
    schedule = Schedule.of(network.for_steps(900))
    rates = [float(schedule.rate(schedule.init(), step)) for step in (449, 450, 629, 630)]
    np.testing.assert_allclose(rates, [0.1, 0.01, 0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize(("steps", "warmup_steps"), [(100, 1), (6400, 40), (192_000, 400)])
def test_short_run_does_not_warm_up_throughout(steps, warmup_steps):
    (network,) = networks.collect([], [Recipe.from_config(cifar10.get_config("preact-resnet-8"))])
    schedule = Schedule.of(network.for_steps(steps))
    rates = [float(schedule.rate(schedule.init(), at)) for at in (warmup_steps - 1, warmup_steps)]
    np.testing.assert_allclose(rates, [0.01, 0.1], rtol=1e-5)


def factors(name="preact-resnet-8", **axes):
    model, variables = make(name, stage_sizes=(2, 1), **axes)
    variables = with_statistics_of(model, variables, IMAGES)
    return shortcuts.factors(model, variables, IMAGES, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preact-resnet-8", "resnet-8"])
@pytest.mark.parametrize(
    ("axes", "factor"),
    [
        ({}, 1.0),
        ({"shortcut": "constant_scaling", "shortcut_scale": 0.5}, 0.5),
    ],
)
def test_scaling_multiplies_the_gradient_by_its_factor_in_every_block(name, axes, factor):
    found = factors(name, **axes)
    np.testing.assert_allclose(found.measured, factor, rtol=1e-4)
    np.testing.assert_array_equal(found.predicted, factor)
    # Last to first, without the units that change the shape.
    np.testing.assert_array_equal(found.blocks, [1, 0])


def test_prediction_has_every_factor_and_the_gates_learnt_bias():
    projected = {"option": "C", "shortcut": "constant_scaling"}
    whole, quarter = (factors(**projected, shortcut_scale=scale) for scale in (1.0, 0.25))
    np.testing.assert_allclose(quarter.predicted, whole.predicted / 4, rtol=1e-5)
    np.testing.assert_allclose(quarter.measured / quarter.predicted, 1, rtol=0.5)
    model, variables = make("preact-resnet-8", stage_sizes=(2, 1), shortcut="shortcut_only_gating")
    for block in variables["params"].values():
        if "gate" in block:
            block["gate"]["bias"] = np.full_like(block["gate"]["bias"], -6.0)
    variables = with_statistics_of(model, variables, IMAGES)
    found = shortcuts.factors(model, variables, IMAGES, LABELS)
    np.testing.assert_allclose(found.predicted, 1 / (1 + np.exp(-6.0)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ["exclusive_gating", "shortcut_only_gating"])
def test_gates_pass_what_their_bias_leaves_open(shortcut):
    found = factors(shortcut=shortcut, gate_bias=-6.0)
    np.testing.assert_allclose(found.measured, found.predicted, rtol=0.05)
    assert found.predicted[0] == pytest.approx(0.9975, abs=1e-4)


@pytest.mark.weekly
def test_dropout_passes_the_root_mean_square_of_its_mask():
    found = factors(shortcut="dropout", dropout_rate=0.5)
    assert found.predicted[0] == pytest.approx(2**0.5)
    assert found.measured[0] == pytest.approx(2**0.5, rel=0.15)


@pytest.mark.weekly
def test_convolutions_on_shortcuts_are_no_identity():
    found = factors("resnet-8", option="C")
    assert (abs(found.measured - 1) > 0.01).all()
    np.testing.assert_allclose(found.measured, found.predicted, rtol=0.6)


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("resnet-8", {}, "the ReLU after each addition"),
        ("resnet-8", {"order": "bn_after_add"}, "the ReLU after each addition"),
        ("resnet-8", {"activation": "tanh"}, "the tanh after each addition"),
        ("resnet-8", {"activation": "linear"}, ""),
        ("preact-resnet-8", {}, ""),
        ("preact-resnet-8", {"option": "C"}, "the ReLU before each projection"),
    ],
)
def test_activations_on_the_way_are_named_as_not_counted(name, axes, words):
    assert shortcuts.not_counted(make(name, **axes)[0]) == words


def test_network_whose_blocks_all_change_the_shape_is_refused():
    with pytest.raises(InputError, match="11 layers: none of its blocks keeps its input's shape"):
        shortcuts.factors(*make("resnet-11", block="bottleneck"), IMAGES, LABELS)


def test_plain_network_has_no_shortcuts():
    with pytest.raises(InputError, match="plain network has no shortcuts"):
        factors("plain-8")
