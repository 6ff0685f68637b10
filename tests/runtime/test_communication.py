"""Bytes are counted for what a program really sends."""

import jax
import jax.numpy as jnp

from resnet_jax.runtime import parallel

MESH = parallel.make_mesh(8, 8, 8)


def program(function, out, *shapes):
    whole, shared = parallel.replicated(MESH), parallel.sharded(MESH)
    place = {"whole": whole, "shared": shared}[out]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=shared) for shape in shapes]
    return jax.jit(function, out_shardings=place).lower(*arguments).compile().as_text()


def test_sum_over_devices_is_counted_by_its_result():
    text = program(lambda a, b: (a.sum(0), b.sum(0)), "whole", (16, 3, 5), (8, 7))
    assert parallel.bytes_sent(text) == {"all-reduce": 4 * (3 * 5 + 7)}


def test_gathered_array_is_told_from_a_sum():
    assert parallel.bytes_sent(program(lambda a: a * 2, "whole", (16, 3))) == {
        "all-gather": 4 * 16 * 3
    }


def test_work_on_each_devices_own_part_sends_nothing():
    assert parallel.bytes_sent(program(lambda a: a * 2, "shared", (16, 3))) == {}


def test_convolutions_are_counted_by_who_computes_them():
    text = """
      %a = f32[2,8] convolution(%x, %k), window={size=3x3}
      %b = f32[2,8] convolution(%a, %k), window={size=3x3}
      %c = (f32[2,8], u8[0]) custom-call(%b, %k), custom_call_target="__cudnn$convForward"
      %d = f32[2,8] custom-call(%c), custom_call_target="__cublas$gemm"
    """
    assert parallel.convolution_kernels(text) == {"XLA": 2, "__cudnn$convForward": 1}
