"""What is computed otherwise on a CPU is what JAX computes; elsewhere it is JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from resnet_jax.models import zoo
from resnet_jax.runtime import cpu

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.fixture
def on_one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def gradients(conv, x, kernel, stride, dilation):
    pad = dilation * (kernel.shape[0] // 2)
    shape = {"rhs_dilation": (dilation, dilation), "dimension_numbers": LAYOUT}
    loss = lambda x, kernel: jnp.sin(
        conv(x, kernel, (stride, stride), [(pad, pad), (pad, pad)], **shape)
    ).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "side"),
    [
        *[(3, 1, 1, 8), (3, 2, 1, 8), (3, 2, 1, 7), (3, 1, 2, 8)],
        *[(7, 2, 1, 9), (1, 1, 1, 8), (1, 2, 1, 7)],
    ],
)
def test_gradients_equal_those_of_jax(size, stride, dilation, side, on_one_device, monkeypatch):
    monkeypatch.setattr(cpu, "PART", 2**13)
    random = np.random.default_rng(0)
    x = random.standard_normal((32, side, side, 4), np.float32)
    kernel = random.standard_normal((size, size, 4, 6), np.float32)
    assert cpu._num_parts(x, x) > 1
    expected = gradients(lax.conv_general_dilated, x, kernel, stride, dilation)
    found = gradients(cpu.conv_general_dilated, x, kernel, stride, dilation)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet-20", pytest.param("resnet-50", marks=pytest.mark.slow)])
def test_every_convolution_of_a_step_has_the_fast_layout(name):
    """XLA:CPU brings others into it outside of loops alone: inside, they are 20 times slower."""
    model = zoo.create(name, width=4, bn_group_size=None)
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    loss = lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[0].sum()
    convolutions = _convolutions(jax.make_jaxpr(jax.grad(loss))(variables).jaxpr)
    assert len(convolutions) > 40
    fast = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), LAYOUT)
    assert {equation.params["dimension_numbers"] for equation in convolutions} == {fast}


def _convolutions(jaxpr) -> list:
    found = [e for e in jaxpr.eqns if e.primitive is lax.conv_general_dilated_p]
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                found += _convolutions(getattr(inner, "jaxpr", inner))
    return found


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize(
    ("batch", "devices", "parts"),
    [
        (64, 1, 4),
        (128, 1, 8),
        (128, 2, 8),
        (128, 64, 2),
        (128, 128, 1),
        (6, 1, 1),
        (25, 2, 1),
        (1, 1, 1),
    ],
)
def test_parts_fit_the_cache_and_divide_each_devices_share(batch, devices, parts):
    x = jax.ShapeDtypeStruct((batch, 32, 32, 16), jnp.float32)
    with cpu.batches_shared_by(devices):
        assert cpu._num_parts(x, x) == parts


def test_accelerators_convolve_as_jax_does(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((1, 1, 4, 4))

    def jaxpr(conv):
        padding = [(0, 0), (0, 0)]
        return str(
            jax.make_jaxpr(lambda: conv(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT))()
        )

    assert jaxpr(cpu.conv_general_dilated) == jaxpr(lax.conv_general_dilated)


def test_accelerators_pool_and_fuse_as_xla_does(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    program = _program_of_a_step("resnet-18")
    assert "reduce_window_max" in program
    assert "select_and_scatter" in program
    assert "optimization_barrier" not in program


def test_gpus_pool_without_select_and_scatter_where_they_must_be_deterministic(monkeypatch):
    """XLA refuses that operation there."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    program = _program_of_a_step("resnet-18")
    assert "reduce_window" not in program
    assert "select_and_scatter" not in program


def test_cpu_pools_by_comparisons_and_ends_fusion_after_each_block():
    program = _program_of_a_step("resnet-18")
    assert "select_and_scatter" not in program
    assert program.count("= optimization_barrier") >= 8


def test_references_are_traced_as_jax_has_them():
    with cpu.as_jax_has_it():
        program = _program_of_a_step("resnet-18")
    assert "optimization_barrier" not in program
    assert "custom_vjp" not in program


def _program_of_a_step(name: str) -> str:
    model = zoo.create(name, width=4, bn_group_size=None)
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    loss = lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[0].sum()
    return str(jax.make_jaxpr(jax.grad(loss))(variables))
