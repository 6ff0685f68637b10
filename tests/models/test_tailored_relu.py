"""Tailored ReLUs have the slope that their C-map asks for."""

import jax
import numpy as np
import pytest

from resnet_jax.errors import InputError
from resnet_jax.models import tailored_relu, zoo
from resnet_jax.models.resnet import ConvNormAct


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("c", [-0.5, 0.0, 0.8])
def test_c_map_is_the_correlation_of_activations_of_correlated_gaussians(slope, c):
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    phi = lambda x: tailored_relu.output_scale(slope) * np.where(x > 0, x, slope * x)
    x, noise = np.meshgrid(points, points, indexing="ij")
    y = c * x + np.sqrt(1 - c**2) * noise
    mean = lambda values: weights @ values @ weights
    np.testing.assert_allclose(mean(phi(x) ** 2), 1.0, atol=1e-3)
    np.testing.assert_allclose(mean(phi(x) * phi(y)), tailored_relu.c_map(c, slope), atol=2e-3)


@pytest.mark.parametrize(("depth", "slope"), [(20, 0.164442777633667), (56, 0.45185598731040955)])
def test_slope_is_that_of_the_authors_package(depth, slope):  # dks 0.1.2, η = 0.9
    net = zoo.describe(
        f"plain-{depth}",
        activation="tailored_relu",
        norm="none",
        initialization="delta_orthogonal",
    )
    assert net.negative_slope == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("eta", [0.3, 0.9])
def test_whole_chain_takes_uncorrelated_inputs_to_eta(eta):
    slope = tailored_relu.negative_slope(31, eta)
    assert tailored_relu.c_map(0.0, slope, layers=31) == pytest.approx(eta)


def test_chain_too_short_for_eta_is_told_what_it_reaches():
    with pytest.raises(InputError, match=r"tat_eta=0.9: .* at most 0.809, which 7 layers of ReLU"):
        tailored_relu.negative_slope(7)


def test_network_activates_by_a_leaky_relu_whose_gradient_does_not_grow_at_zero():
    net = zoo.describe(
        "plain-56", activation="tailored_relu", norm="none", initialization="delta_orthogonal"
    )
    slope, scale = net.negative_slope, tailored_relu.output_scale(net.negative_slope)
    values, gradients = jax.vmap(jax.value_and_grad(ConvNormAct(net).activate))(
        np.array([-2.0, 0.0, 3.0], np.float32)
    )
    np.testing.assert_allclose(values, [-2 * slope * scale, 0, 3 * scale], rtol=1e-6)
    np.testing.assert_allclose(gradients, scale * np.array([slope, (1 + slope) / 2, 1]), rtol=1e-6)
    assert gradients[1] < 1
