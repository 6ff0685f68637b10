"""One update is the papers' SGD, and accumulating gradients does not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax.models import zoo
from resnet_jax.runtime import parallel
from resnet_jax.training import state, step
from resnet_jax.training.schedules import Schedule

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(8) % 3
SCHEDULE = Schedule("constant", 10, 0.1)


def make(optimizer=None, name="resnet-8", **options):
    axes = {"bn_group_size": 2, "width": 4, **options.pop("axes", {})}
    model = zoo.create(name, 3, **axes)
    optimizer = optimizer or step.sgd()
    start = state.create(jax.random.key(1), model, (8, 8, 3), optimizer, SCHEDULE)
    train_step = step.make_train_step(model, optimizer, SCHEDULE, **options)
    return model, start, jax.jit(train_step)


def assert_trees_close(a, b, **tolerances):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), a, b)


@pytest.mark.slow
def test_update_is_momentum_sgd_with_l2_on_the_kernels():
    model, start, train_step = make()

    def loss(params):
        logits, _ = model.apply(
            {"params": params, "batch_stats": start.batch_stats},
            IMAGES,
            True,
            mutable="batch_stats",
        )
        logp = jax.nn.log_softmax(logits)
        return -logp[jnp.arange(8), LABELS].mean()

    @jax.jit
    def expected(params, velocity):
        grads = jax.grad(loss)(params)
        flat = jax.tree_util.tree_map_with_path(
            lambda path, w, g, v: 0.9 * v + g + (1e-4 * w if path[-1].key == "kernel" else 0),
            params,
            grads,
            velocity,
        )
        return jax.tree.map(lambda w, v: w - 0.1 * v, params, flat), flat

    params, velocity = start.params, jax.tree.map(jnp.zeros_like, start.params)
    current = start
    for _ in range(2):
        params, velocity = expected(params, velocity)
        current, _ = train_step(current, (IMAGES, LABELS), jax.random.key(0))
    assert int(current.step) == 2
    assert_trees_close(current.params, params, rtol=1e-4, atol=1e-5)


def test_decay_of_all_parameters_reaches_scales_and_biases():
    params = {"conv": {"kernel": jnp.ones(2)}, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decay, decayed in (("kernels", 0.0), ("all", 0.5)):
        optimizer = step.sgd(weight_decay=0.5, weight_decay_mask=decay)
        update, _ = optimizer.update(zeros, optimizer.init(params), params)
        assert float(update["conv"]["kernel"][0]) == 0.5
        assert float(update["norm"]["scale"][0]) == decayed


@pytest.mark.parametrize("norm", [0.5, 5.0])
def test_gradient_longer_than_the_norm_is_cut_to_it(norm):
    grads = {"a": jnp.array([0.0, 3.0]), "b": {"kernel": jnp.array([4.0])}}  # of norm 5
    optimizer = step.sgd(0.0, 0.0, max_grad_norm=norm)
    cut, _ = optimizer.update(grads, optimizer.init(grads), grads)
    expected = jax.tree.map(lambda leaf: leaf * norm / 5, grads)
    assert_trees_close(cut, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["plain-8", "resnet-8"])
def test_learning_rate_falls_from_layer_to_layer_to_the_first(name):
    _, start, _ = make(name=name, axes={"order": "full_preact", "option": "B"})
    optimizer = step.sgd(0.0, 0.0, layer_decay=0.5)
    ones = jax.tree.map(jnp.ones_like, start.params)
    scaled, _ = optimizer.update(ones, optimizer.init(ones), ones)
    exponents = jax.tree.map(lambda leaf: -np.log2(leaf.ravel()[0]), scaled)
    layers = [exponents["classifier"]["kernel"]]
    for stage in (3, 2, 1):
        block = exponents[f"stage{stage}_unit1"]
        layers += [block["conv2"]["kernel"], block["conv1"]["kernel"]]
        assert block["norm1"]["scale"] == block["conv1"]["kernel"]
    assert [*layers, exponents["stem"]["kernel"]] == list(range(8))
    assert exponents["stem_norm"]["scale"] == 7
    assert exponents["final_norm"]["scale"] == 0


def test_frozen_layers_count_in_the_decay_from_layer_to_layer():
    _, start, _ = make(name="plain-8")
    ones = jax.tree.map(jnp.ones_like, start.params)

    def first(frozen):
        optimizer = step.sgd(0.0, 0.0, layer_decay=0.5, frozen=frozen)
        scaled, _ = optimizer.update(ones, optimizer.init(ones), ones)
        return scaled["stem"]["kernel"].ravel()[0]

    assert first({"stage2", "stage3"}) == first(()) == 0.5**7


def test_metrics_are_of_the_batch_before_the_update():
    model, start, train_step = make()
    _, metrics = train_step(start, (IMAGES, LABELS), jax.random.key(0))
    forward = jax.jit(lambda v: model.apply(v, IMAGES, True, mutable=["batch_stats"]))
    logits, _ = forward(start.variables)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["error"] == pytest.approx(float((logits.argmax(-1) != LABELS).mean()))
    assert metrics["learning_rate"] == pytest.approx(0.1)
    assert metrics["gradient_norm"] > 0


def test_examples_of_which_a_network_makes_nan_are_errors():
    _, start, train_step = make()
    lost = start.replace(params=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), start.params))
    _, metrics = train_step(lost, (IMAGES, jnp.zeros_like(LABELS)), jax.random.key(0))
    assert metrics["error"] == 1


@pytest.mark.slow
def test_accumulated_gradients_make_the_same_update():
    _, start, whole = make()
    _, _, parts = make(grad_accum_steps=4)
    after_whole, metrics = whole(start, (IMAGES, LABELS), jax.random.key(0))
    after_parts, metrics_of_parts = parts(start, (IMAGES, LABELS), jax.random.key(0))
    assert_trees_close(after_parts.variables, after_whole.variables, rtol=1e-4, atol=1e-6)
    assert_trees_close(metrics_of_parts, metrics, rtol=1e-4)


@pytest.mark.slow
def test_accumulation_leaves_every_device_its_share_of_the_work():
    mesh = parallel.make_mesh(8, 4, 2)
    flops = {}
    for parts in (1, 2):
        _, start, train_step = make(grad_accum_steps=parts, mesh=mesh)
        batch = jax.device_put((IMAGES, LABELS), parallel.sharded(mesh))
        compiled = train_step.lower(start, batch, jax.random.key(0)).compile()
        flops[parts] = parts * compiled.cost_analysis()["flops"]  # which has a loop's body once
    assert flops[2] == pytest.approx(flops[1], rel=0.2)


def test_dropout_shortcut_draws_anew_for_each_key():
    _, start, train_step = make(axes={"shortcut": "dropout"})
    losses = [
        float(train_step(start, (IMAGES, LABELS), jax.random.key(i))[1]["loss"]) for i in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_label_smoothing_mixes_in_the_uniform_distribution():
    logits = jnp.asarray(RNG.normal(size=(4, 5)))
    labels = jnp.array([0, 1, 2, 3])
    plain = step.cross_entropy(logits, labels)
    uniform = -jax.nn.log_softmax(logits).mean(-1)
    np.testing.assert_allclose(
        step.cross_entropy(logits, labels, 0.1), 0.9 * plain + 0.1 * uniform, rtol=1e-5
    )


def test_training_lowers_the_loss_without_batch_norm_too():
    _, current, train_step = make(axes={"norm": "none", "bn_group_size": None})
    losses = []
    for i in range(20):
        current, metrics = train_step(current, (IMAGES, LABELS), jax.random.key(i))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
