"""The error of a split is that of every example, once."""

import jax
import numpy as np
import optax
import pytest

from resnet_jax.data import device_dataset
from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.runtime import parallel
from resnet_jax.training.evaluation import make_evaluate
from resnet_jax.training.inference import Predictions

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 8, 8, 3), np.uint8)
LABELS = (np.arange(11) % 3).astype(np.int32)

MODEL = zoo.create("resnet-8", 3, width=4)


def _evaluation(batch_size: int, num_devices: int):
    variables = MODEL.lazy_init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), "float32"), train=False
    )
    data = device_dataset.DeviceDataset(
        IMAGES, LABELS, device_dataset.normalization(IMAGES, "pixel", "channel")
    )
    mesh = parallel.make_mesh(batch_size, 1, num_devices)
    return make_evaluate(MODEL, mesh, batch_size), variables, data


@pytest.mark.parametrize(("batch_size", "num_devices"), [(4, 1), (4, 2), (16, 8)])
def test_whole_split_is_counted_whatever_the_batch(batch_size, num_devices):
    evaluate, variables, data = _evaluation(batch_size, num_devices)
    figures = evaluate(variables, data)

    images = (IMAGES / 255 - data.normalization.mean) / data.normalization.std
    logits = MODEL.apply(variables, images.astype(np.float32), train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    assert figures["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert figures["error"] == np.mean(logits.argmax(-1) != LABELS)


def test_what_the_network_makes_nan_of_is_an_error_whatever_its_class():
    evaluate, variables, data = _evaluation(batch_size=4, num_devices=1)
    data = data.replace(labels=np.zeros_like(LABELS))  # the argmax of NaN
    # Finite, as running averages may be while the weights outgrow them.
    variables = {
        **variables,
        "batch_stats": jax.tree.map(lambda leaf: leaf * 1e-30, variables["batch_stats"]),
        "params": jax.tree.map(lambda leaf: leaf * 1e30, variables["params"]),
    }
    figures = evaluate(variables, data)
    assert np.isnan(figures["loss"])
    assert figures["error"] == 1

    about, names = {"model": "resnet-8"}, ("a", "b", "c")
    logits = np.array([[2, 1, 0], [0, 2, 1], [np.nan, 0, 0], [0, 3, 0]], np.float32)
    predictions = Predictions(about, logits, np.zeros(4, np.int32), names)
    assert np.isnan(predictions.metrics()["loss"])
    assert predictions.metrics()["error"] == 3 / 4
    with pytest.raises(InputError, match="resnet-8: of 1 of 4 examples"):
        _ = predictions.classes


def test_batches_are_compiled_once():
    """The first batch's sums are placed as those are that the others add to."""
    compiled = []
    record = lambda event, seconds, **_: compiled.append(event)
    jax.monitoring.register_event_duration_secs_listener(record)
    evaluate, variables, data = _evaluation(batch_size=4, num_devices=2)
    compiled.clear()
    try:
        evaluate(variables, data)
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    assert compiled.count("/jax/core/compile/backend_compile_duration") == 1
