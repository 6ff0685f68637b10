"""Responses are measured after batch norm and before activation and addition (v1 Figure 7)."""

import jax
import numpy as np
import pytest
from nets import IMAGES, make

from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.models.folding import fold
from resnet_jax.studies import responses


@pytest.mark.parametrize("name", ["plain-8", "resnet-8"])
def test_normalised_layers_respond_with_the_scale_of_their_norm(name):
    model, variables = make(name)
    variables = with_statistics_of(model, variables, IMAGES)
    params = dict(variables["params"])
    unit = dict(params["stage2_unit1"])
    unit["norm1"] = {**unit["norm1"], "scale": 3.0 * unit["norm1"]["scale"]}
    params["stage2_unit1"] = unit
    found = responses.responses(model, {**variables, "params": params}, IMAGES)
    assert found.layers[:4] == ("stem", "stage1_unit1/conv1", "stage1_unit1/conv2",
                                "stage2_unit1/conv1")  # fmt: skip
    # Statistics are unbiased variances, of 8 images with 64 or 16 places.
    np.testing.assert_allclose(found.std[:4], [1, 1, 1, 3], rtol=0.01)


def test_branches_that_fold_into_one_layer_respond_as_that_layer():
    model, variables = make("plain-8", parameterization="repvgg")
    variables = with_statistics_of(model, variables, IMAGES)
    found = responses.responses(model, variables, IMAGES)
    folded = responses.responses(*fold(model, variables), IMAGES)
    assert found.layers == folded.layers
    np.testing.assert_allclose(found.std, folded.std, rtol=1e-3)


def test_several_batches_give_the_deviation_of_all_images():
    model, variables = make("resnet-8")
    images = np.concatenate([IMAGES, 3.0 * IMAGES + 1.0])
    outputs = responses._captured(model, variables, images)
    expected = [np.std(response) for response in outputs]
    by_eights = lambda array: ((part,) for part in np.split(array, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "batches", by_eights)
        found = responses.responses(model, variables, images)
    np.testing.assert_allclose(found.std, expected, rtol=1e-3)


def test_small_deviation_beside_a_large_mean_is_kept():
    model, variables = make("resnet-8", norm="none")
    params = jax.tree.map(np.array, variables["params"])
    alone = responses.responses(model, {"params": params}, IMAGES).std[0]
    params["stem"]["bias"] += np.float32(1e4 * alone)
    found = responses.responses(model, {"params": params}, IMAGES).std[0]
    assert found == pytest.approx(alone, rel=0.01)


def test_bottlenecks_and_preactivation_networks_have_one_response_for_each_3x3_layer():
    model, variables = make("preact-resnet-20", block="bottleneck")
    found = responses.responses(model, variables, IMAGES)
    assert len(found.layers) == 1 + model.architecture.num_blocks
    assert all(name.endswith("conv2") for name in found.layers[1:])
