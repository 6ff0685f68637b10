"""A unit computes its formula; each formula is written out here as the papers draw it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from resnet_jax.models.architecture import Architecture
from resnet_jax.models.batch_norm import EPSILON
from resnet_jax.models.resnet import ResidualBlock

X = np.random.default_rng(1).normal(0.5, 1.0, (4, 6, 6, 8)).astype(np.float32)


def make(channels=8, stride=1, **axes):
    net = Architecture(stage_sizes=(1,), **axes)
    unit = ResidualBlock(net, channels=channels, stride=stride)
    variables = unit.init(jax.random.key(0), X, train=False)
    # Scales and biases that are not 1 and 0, so that leaving one out shows.
    leaves, tree = jax.tree.flatten(variables["params"])
    noise = np.random.default_rng(2)
    leaves = [leaf + 0.3 * noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return unit, {**variables, "params": jax.tree.unflatten(tree, leaves)}


def run(unit, variables, **kwargs):
    y, _ = unit.apply(variables, X, train=True, mutable=["batch_stats"], **kwargs)
    return y


class Formula:
    """The papers' layers, on a unit's parameters."""

    def __init__(self, variables):
        self.params = variables["params"]

    def conv(self, x, name, stride=1):
        kernel = self.params[name]["kernel"]
        pad = kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.params[name].get("bias", 0.0)

    def norm(self, x, name):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        p = self.params[name]
        return (x - mean) / np.sqrt(var + EPSILON) * p["scale"] + p["bias"]


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def branch_of_original(f, x, stride=1):
    x = relu(f.norm(f.conv(x, "conv1", stride), "norm1"))
    return f.norm(f.conv(x, "conv2"), "norm2")


def original(f, x):  # v2 Figure 4(a)
    return relu(x + branch_of_original(f, x))


def bn_after_add(f, x):  # 4(b)
    branch = f.conv(relu(f.norm(f.conv(x, "conv1"), "norm1")), "conv2")
    return relu(f.norm(x + branch, "after_norm"))


def relu_before_add(f, x):  # 4(c)
    return x + relu(branch_of_original(f, x))


def relu_only_preact(f, x):  # 4(d)
    return x + branch_of_original(f, relu(x))


def full_preact(f, x):  # 4(e)
    y = f.conv(relu(f.norm(x, "before_norm")), "conv1")
    return x + f.conv(relu(f.norm(y, "norm1")), "conv2")


@pytest.mark.parametrize(
    "formula", [original, bn_after_add, relu_before_add, relu_only_preact, full_preact]
)
def test_order_of_activation_computes_its_formula(formula):
    unit, variables = make(order=formula.__name__)
    np.testing.assert_allclose(run(unit, variables), formula(Formula(variables), X), atol=2e-5)


def none(f, x):
    return branch_of_original(f, x)


def identity(f, x):
    return x + branch_of_original(f, x)


def constant_scaling(f, x):
    return 0.5 * x + 0.25 * branch_of_original(f, x)


def exclusive_gating(f, x):
    g = sigmoid(f.conv(x, "gate"))
    return (1 - g) * x + g * branch_of_original(f, x)


def shortcut_only_gating(f, x):
    return (1 - sigmoid(f.conv(x, "gate"))) * x + branch_of_original(f, x)


@pytest.mark.parametrize(
    "formula", [none, identity, constant_scaling, exclusive_gating, shortcut_only_gating]
)
def test_shortcut_computes_its_formula(formula):  # v2 §3.1
    scaled = formula is constant_scaling
    scales = {"shortcut_scale": 0.5, "branch_scale": 0.25} if scaled else {}
    unit, variables = make(shortcut=formula.__name__, **scales)
    np.testing.assert_allclose(
        run(unit, variables), relu(formula(Formula(variables), X)), atol=2e-5
    )


@pytest.mark.parametrize(("scale", "shortcut"), [(0.0, "none"), (1.0, "identity")])
def test_dial_goes_from_plain_to_residual(scale, shortcut):
    dial, variables = make(16, 2, shortcut="constant_scaling", shortcut_scale=scale)
    end, same = make(16, 2, shortcut=shortcut)
    jax.tree.map(np.testing.assert_array_equal, variables, same)

    def learn(unit):
        square = lambda params: (run(unit, {**variables, "params": params}) ** 2).sum()
        return run(unit, variables), jax.grad(square)(variables["params"])

    jax.tree.map(np.testing.assert_array_equal, learn(dial), learn(end))


def number(f, name):
    return f.params[name]["value"]


def fixup(f, x):  # Zhang et al. 2019, Figure 1
    y = relu(f.conv(x + number(f, "conv1_bias"), "conv1") + number(f, "bias1"))
    y = f.conv(y + number(f, "conv2_bias"), "conv2")
    return x + number(f, "multiplier") * y + number(f, "bias2")


def skipinit(f, x):  # De & Smith 2020, Figure 1; ReZero is the same
    y = f.conv(relu(f.conv(x, "conv1")), "conv2")
    return x + number(f, "multiplier") * y


@pytest.mark.parametrize("formula", [fixup, skipinit])
def test_block_without_batch_norm_computes_its_formula(formula):
    unit, variables = make(norm="none", initialization=formula.__name__)
    np.testing.assert_allclose(
        run(unit, variables), relu(formula(Formula(variables), X)), atol=2e-5
    )
    no_channel_biases = all("bias" not in variables["params"][name] for name in ("conv1", "conv2"))
    assert no_channel_biases == (formula is fixup)


@pytest.mark.parametrize("initialization", ["fixup", "skipinit"])
def test_block_without_batch_norm_starts_as_its_shortcut(initialization):
    net = Architecture(stage_sizes=(1,), norm="none", initialization=initialization)
    unit = ResidualBlock(net, channels=8)
    variables = unit.init(jax.random.key(0), X, train=False)
    np.testing.assert_array_equal(run(unit, variables), nn.relu(X))


def dirac_kernel(f, name):  # Zagoruyko & Komodakis 2017, §3
    kernel = np.asarray(f.params[name]["kernel"])
    delta = np.zeros_like(kernel)
    np.fill_diagonal(delta[1, 1], 1.0)
    direction = kernel / np.sqrt((kernel**2).sum((0, 1, 2)))
    number = lambda part: f.params[f"dirac{name[-1]}_{part}"]["value"]
    return number("delta") * delta + number("weight") * direction


def dirac(f, x, strides):
    kernels = {f"conv{place}": {"kernel": dirac_kernel(f, f"conv{place}")} for place in (1, 2)}
    f = Formula({"params": {**f.params, **kernels}})
    for place, stride in enumerate(strides, start=1):
        x = relu(f.norm(f.conv(x, f"conv{place}", stride), f"norm{place}"))
    return x


def repvgg(f, x, strides):  # Ding et al. 2021, Figure 2
    for place, stride in enumerate(strides, start=1):
        y = f.norm(f.conv(x, f"conv{place}", stride), f"norm{place}")
        y += f.norm(f.conv(x, f"conv{place}_1x1", stride), f"norm{place}_1x1")
        if x.shape == y.shape:
            y += f.norm(x, f"norm{place}_identity")
        x = relu(y)
    return x


@pytest.mark.parametrize("formula", [dirac, repvgg])
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 2)])
def test_parameterization_computes_its_formula(formula, channels, stride):
    unit, variables = make(channels, stride, shortcut="none", parameterization=formula.__name__)
    expected = formula(Formula(variables), X, (stride, 1))
    np.testing.assert_allclose(run(unit, variables), expected, atol=5e-5)


@pytest.mark.parametrize(
    "axes",
    [
        {"shortcut": "constant_scaling", "shortcut_scale": 0.7},
        {"norm": "none", "initialization": "fixup"},
        {"initialization": "skipinit"},
        {"shortcut": "none", "initialization": "looks_linear"},
        {"shortcut": "none", "parameterization": "dirac"},
        {"shortcut": "none", "parameterization": "repvgg"},
        {
            **{"shortcut": "none", "norm": "none", "activation": "tailored_relu"},
            **{"initialization": "delta_orthogonal", "tat_eta": 0.5},
        },
    ],
    ids=str,
)
def test_gradient_is_that_of_finite_differences(axes):
    with jax.enable_x64(True):
        net = Architecture(stage_sizes=(1,), **axes)
        unit = ResidualBlock(net, channels=8, dtype=jnp.float64)
        params = unit.init(jax.random.key(0), X, train=False)["params"]
        random = np.random.default_rng(3)
        move = lambda leaf, size: leaf + size * random.normal(size=leaf.shape)
        params = jax.tree.map(lambda leaf: move(leaf, 0.3), params)
        images = X.astype(np.float64)
        run = lambda params: unit.apply({"params": params}, images, True, mutable=["batch_stats"])
        loss = lambda params: (run(params)[0] ** 2).sum()
        check_grads(loss, (params,), order=1, modes=["rev"], eps=1e-6)


def test_gate_starts_at_its_bias():
    net = Architecture(stage_sizes=(1,), shortcut="exclusive_gating", gate_bias=-6.0)
    params = ResidualBlock(net, channels=8).init(jax.random.key(0), X, train=False)["params"]
    np.testing.assert_array_equal(params["gate"]["bias"], -6.0)


def test_dropout_drops_half_of_the_shortcut_in_training_and_nothing_in_tests():
    unit, variables = make(shortcut="dropout", order="relu_before_add")
    f = Formula(variables)
    shortcut = run(unit, variables, rngs={"dropout": jax.random.key(3)}) - relu(
        branch_of_original(f, X)
    )
    dropped = np.isclose(shortcut, 0, atol=2e-5)
    np.testing.assert_allclose(
        np.where(dropped, 0, shortcut), np.where(dropped, 0, 2 * X), atol=1e-4
    )
    assert 0.45 < dropped.mean() < 0.55
    first, second = (unit.apply(variables, X, train=False) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("padding", "zeros"), [("end", (0, 8)), ("both", (4, 4))])
def test_option_a_strides_and_pads_with_zero_channels(padding, zeros):
    unit, variables = make(channels=16, stride=2, option="A", option_a_padding=padding)
    before, after = (np.zeros((4, 3, 3, count), np.float32) for count in zeros)
    shortcut = np.concatenate([before, X[:, ::2, ::2], after], -1)
    expected = relu(shortcut + branch_of_original(Formula(variables), X, stride=2))
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)
    assert "projection" not in variables["params"]


@pytest.mark.parametrize(
    ("option", "channels", "stride"), [("B", 16, 2), ("C", 16, 2), ("C", 8, 1)]
)
def test_options_b_and_c_project_and_normalise(option, channels, stride):
    unit, variables = make(channels=channels, stride=stride, option=option)
    f = Formula(variables)
    shortcut = f.norm(f.conv(X, "projection", stride), "projection_norm")
    expected = relu(shortcut + branch_of_original(f, X, stride))
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)


def test_option_b_keeps_the_identity_where_shapes_agree():
    _, variables = make(option="B")
    assert "projection" not in variables["params"]


def test_projection_of_a_preactivation_unit_takes_the_preactivated_input():
    unit, variables = make(channels=16, stride=2, option="B", order="full_preact")
    f = Formula(variables)
    activated = relu(f.norm(X, "before_norm"))
    branch = f.conv(relu(f.norm(f.conv(activated, "conv1", 2), "norm1")), "conv2")
    expected = f.conv(activated, "projection", 2) + branch
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)


@pytest.mark.parametrize(("downsample_in", "strides"), [("1x1", (2, 1)), ("3x3", (1, 2))])
def test_bottleneck_strides_where_it_is_told(downsample_in, strides):
    unit, variables = make(16, 2, block="bottleneck", option="B", downsample_in=downsample_in)
    f = Formula(variables)
    assert [variables["params"][f"conv{i}"]["kernel"].shape for i in (1, 2, 3)] == [
        (1, 1, 8, 4),
        (3, 3, 4, 4),
        (1, 1, 4, 16),
    ]
    y = relu(f.norm(f.conv(X, "conv1", strides[0]), "norm1"))
    y = relu(f.norm(f.conv(y, "conv2", strides[1]), "norm2"))
    shortcut = f.norm(f.conv(X, "projection", 2), "projection_norm")
    expected = relu(shortcut + f.norm(f.conv(y, "conv3"), "norm3"))
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)


def test_single_branch_is_one_convolution():
    unit, variables = make(block="one_layer")
    f = Formula(variables)
    expected = relu(X + f.norm(f.conv(X, "conv1"), "norm1"))
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("activation", "function"), [("tanh", np.tanh), ("sigmoid", sigmoid), ("relu", relu)]
)
def test_unit_without_norm_has_biases_and_its_activation(activation, function):
    unit, variables = make(norm="none", activation=activation)
    assert "batch_stats" not in variables
    f = Formula(variables)
    expected = function(X + f.conv(function(f.conv(X, "conv1")), "conv2"))
    np.testing.assert_allclose(run(unit, variables), expected, atol=2e-5)


def zero_last_convolution(variables, name="conv2"):
    params = dict(variables["params"])
    params[name] = jax.tree.map(jnp.zeros_like, params[name])
    return {**variables, "params": params}


def test_residual_unit_with_a_zero_branch_is_the_identity():
    unit, variables = make(order="full_preact")
    np.testing.assert_array_equal(run(unit, zero_last_convolution(variables)), X)


def test_plain_unit_has_no_path_around_its_layers():
    unit, variables = make(shortcut="none", order="full_preact")
    np.testing.assert_array_equal(run(unit, zero_last_convolution(variables)), 0.0)


def test_zero_init_last_starts_the_unit_as_its_shortcut():
    net = Architecture(stage_sizes=(1,), zero_init_last=True, option="B")
    unit = ResidualBlock(net, channels=8)
    variables = unit.init(jax.random.key(0), X, train=False)
    np.testing.assert_array_equal(run(unit, variables), nn.relu(X))


def test_initial_weights_are_he_normal():
    net = Architecture(stage_sizes=(1,))
    params = ResidualBlock(net, channels=256).init(jax.random.key(0), X, train=False)["params"]
    kernel = params["conv2"]["kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    assert abs(kernel.mean()) < 1e-3
