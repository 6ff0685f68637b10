"""What is packed for a loop comes out of it as it was."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import scan_layers, zoo

LOOPS = {"stage1_units": ("stage1_unit2", "stage1_unit3"), "stage2_units": ("stage2_unit2",)}
PARAMS = {
    "stem": np.ones(3),
    "stage1_unit1": {"kernel": np.zeros(2)},
    "stage1_unit2": {"kernel": np.array([1.0, 2.0])},
    "stage1_unit3": {"kernel": np.array([3.0, 4.0])},
    "stage2_unit2": {"kernel": np.array([5.0])},
}


def test_packed_units_are_one_entry_in_their_order():
    packed = scan_layers.pack(PARAMS, LOOPS)
    assert set(packed) == {"stem", "stage1_unit1", "stage1_units", "stage2_units"}
    np.testing.assert_array_equal(packed["stage1_units"]["kernel"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(packed["stage2_units"]["kernel"], [[5]])


def test_what_is_packed_comes_out_as_it_was():
    state = {"params": PARAMS, "momentum": (None, [PARAMS]), "batch_stats": {}, "step": np.int32(3)}
    back = jax.jit(lambda state: scan_layers.unpack(scan_layers.pack(state, LOOPS), LOOPS))(state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_without_loops_nothing_is_packed():
    jax.tree.map(np.testing.assert_array_equal, scan_layers.pack(PARAMS, {}), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, scan_layers.unpack(PARAMS, {}), PARAMS)


def test_net_takes_packed_variables_and_returns_packed_statistics():
    model = zoo.create("resnet-20", width=4, bn_group_size=None, scan_blocks=True)
    images = jnp.ones((2, 8, 8, 3))
    variables = model.init(jax.random.key(0), images)
    learn = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))
    logits, updates = learn(variables)
    packed_logits, packed_updates = learn(scan_layers.pack(variables, model.loops))
    np.testing.assert_allclose(packed_logits, logits, rtol=1e-5)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6),
        scan_layers.unpack(packed_updates, model.loops),
        updates,
    )


def test_no_slice_has_its_place_compiled_in():
    tree = {"kernel": jnp.ones((40, 5))}
    program = jax.jit(lambda tree: scan_layers.unstack(tree, 40)).lower(tree).compile().as_text()
    assert " slice(" not in program
    assert program.count(" dynamic-slice(") == 40
