"""What a dry run measures to know how long a sweep takes."""

import pytest

from configs import imagenet
from resnet_jax.runs import Recipe
from resnet_jax.sweeps import estimate
from resnet_jax.training import trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "batch_size"),
    [
        ("batch", 4),
        pytest.param("none", 2, marks=pytest.mark.weekly),
    ],
)
def test_large_images_are_measured_in_the_smallest_batch_of_all_devices(
    norm, batch_size, monkeypatch
):
    config = Recipe.from_config(
        imagenet.get_config(
            "resnet-18,batch_size=16,num_devices=2,model.bn_group_size=2,model.width=4,"
            f"model.norm={norm}"
        )
    )
    made = []

    def with_random_data(config, *args, **kwargs):
        made.append(real(config, *args, **kwargs))
        return made[0]

    real = trainer.with_random_data
    monkeypatch.setattr(trainer, "with_random_data", with_random_data)
    monkeypatch.setattr(estimate, "data_shape", lambda *_: ((32, 32, 3), 5))
    found = estimate.measure(config, multiply_adds=10**6)
    assert (made[0].recipe.batch_size, made[0].mesh.size) == (batch_size, 2)
    assert config.batch_size == 16
    assert found.image_seconds > 0
    assert found.source.startswith("3 steps of resnet-18")
