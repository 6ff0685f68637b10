"""The loss around the weights: filter-normalised, and at the origin what evaluation says."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from nets import LABELS, make, shaken

from resnet_jax.data import device_dataset
from resnet_jax.errors import InputError
from resnet_jax.runtime import parallel
from resnet_jax.studies import landscape
from resnet_jax.training.evaluation import make_evaluate


def test_direction_has_the_norm_of_each_filter_and_leaves_norms_and_biases_alone():
    _, variables = make("resnet-8")
    params = shaken(variables)["params"]
    found = landscape.direction(params, seed=0)
    kernel, moved = (tree["stage2_unit1"]["conv1"]["kernel"] for tree in (params, found))
    norm = lambda array: np.sqrt((np.asarray(array) ** 2).sum((0, 1, 2)))
    np.testing.assert_allclose(norm(moved), norm(kernel), rtol=1e-5)
    assert abs(np.sum(moved * kernel)) < 0.5 * np.sum(kernel**2)
    assert not found["stage2_unit1"]["norm1"]["scale"].any()
    assert not found["classifier"]["bias"].any()
    other = landscape.direction(params, seed=1)["stem"]["kernel"]
    assert not np.allclose(other, found["stem"]["kernel"])


def test_origin_of_the_surface_is_the_evaluated_loss():
    model, variables = make("resnet-8")
    variables = shaken(variables)
    images = np.random.default_rng(5).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    statistics = device_dataset.normalization(images)
    data = device_dataset.DeviceDataset(images, LABELS.astype(np.int32), statistics)
    evaluated = make_evaluate(model, parallel.make_mesh(8, 1, 1), 8)(variables, data)
    directions = tuple(landscape.direction(variables["params"], seed) for seed in (0, 1))
    found = landscape.surface(
        model, variables, (images / 255 - statistics.mean).astype(np.float32), LABELS,
        directions, xs=(0.0, 0.5), ys=(-0.5, 0.0),
    )  # fmt: skip
    assert found.loss[1, 0] == pytest.approx(evaluated["loss"], rel=1e-5)
    assert found.error[1, 0] == evaluated["error"]
    shifted = jax.tree.map(lambda w, d: w + 0.5 * d, variables["params"], directions[0])
    there = make_evaluate(model, parallel.make_mesh(8, 1, 1), 8)(
        {**variables, "params": shifted}, data
    )
    assert found.loss[1, 1] == pytest.approx(there["loss"], rel=1e-4)


def test_trajectory_in_a_plane_is_found_whole_and_keeps_its_distances():
    draws = np.random.default_rng(0)
    a, b = draws.normal(size=(2, 3, 3, 2, 2))
    weights = [
        {"conv": {"kernel": x * a + y * b}, "norm": {"scale": draws.normal(size=2)}}
        for x, y in ((5, 0), (3, 1), (1, 2), (0, 0))
    ]
    found = landscape.trajectory(weights)
    assert found.explained.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(found.coordinates[-1], 0)
    vectors = np.array([tree["conv"]["kernel"].ravel() for tree in weights])
    for i, j in ((0, 1), (1, 2), (0, 3)):
        distance = np.linalg.norm(found.coordinates[i] - found.coordinates[j])
        assert distance == pytest.approx(np.linalg.norm(vectors[i] - vectors[j]))


def test_two_points_are_no_trajectory():
    with pytest.raises(ValueError, match="span no plane"):
        landscape.trajectory([{"conv": {"kernel": np.ones(2)}}] * 2)


@pytest.mark.parametrize(("points", "reach"), [(15, 0.45), (23, 0.2), (99, 1.0)])
def test_weights_themselves_are_a_point_of_the_grid(points, reach, monkeypatch):
    found = landscape.Surface(*[np.zeros(points)] * 2, *[np.ones((points, points))] * 2)
    monkeypatch.setattr(landscape, "surface", lambda *_, **__: found)
    network = SimpleNamespace(
        label="plain-8", model=None, steps=(), about=dict, images=lambda *_: (None, None),
        ready=lambda _: {"params": {"kernel": np.ones((2, 2))}},
    )  # fmt: skip
    table = landscape.measure([network], lambda _: iter, points=points, reach=reach)
    assert len(table[(table["x"] == 0) & (table["y"] == 0)]) == 1
    np.testing.assert_allclose(table["x"].unique(), np.linspace(-reach, reach, points), atol=1e-9)


@pytest.mark.parametrize("reach", [0.0, -1.0])
def test_surface_without_an_extent_is_refused(reach):
    with pytest.raises(InputError, match=f"reach={reach}: must be above 0"):
        landscape.measure([], None, reach=reach)
