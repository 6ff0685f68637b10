"""The ImageNet recipes are the papers', and follow the batch size where they should."""

import pytest

from configs import imagenet
from resnet_jax.errors import InputError
from resnet_jax.reporting import naming, papers
from resnet_jax.runs import Recipe
from resnet_jax.training.schedules import Schedule


def rates(config, epochs: list[float]) -> list[float]:
    schedule = Schedule(num_steps=config.num_steps, **config.schedule)
    steps_per_epoch = imagenet.NUM_IMAGES / config.batch_size
    return [float(schedule.rate(schedule.init(), round(e * steps_per_epoch))) for e in epochs]


def test_paper_recipe_departs_from_the_paper_nowhere():
    settings = naming.flatten(imagenet.get_config("resnet-50").to_dict())
    (number,) = [
        number
        for number in papers.NUMBERS
        if (number.dataset, number.model, number.protocol)
        == ("imagenet2012", "resnet-50", papers.SINGLE_VIEW)
    ]
    assert papers.recipe_diff(settings, number) == []


def test_rate_drops_to_a_tenth_at_epochs_30_60_and_90():
    config = imagenet.get_config("resnet-50")
    found = rates(config, [0, 29, 31, 59, 61, 89, 91, 99])
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])


def test_plateau_watches_images_that_are_not_trained_on_and_not_the_test():
    dataset = imagenet.get_config("resnet-50,recipe=plateau").dataset
    assert (dataset.train, dataset.validation) == ("train[:99%]", "train[99%:]")
    assert dataset.test == "validation"


@pytest.mark.parametrize("batch_size", [256, 8192])
def test_modern_rate_is_in_proportion_to_the_batch_after_five_epochs_of_warm_up(batch_size: int):
    config = imagenet.get_config(f"resnet-50,recipe=modern,batch_size={batch_size}")
    peak = 0.1 * batch_size / 256
    found = rates(config, [0, 2.5, 5, 60, 120])
    assert found == pytest.approx([0, peak / 2, peak, peak / 2, 0], abs=0.01 * peak)


@pytest.mark.parametrize("name", ["resnet-18", "resnet-50", "preact-resnet-200", "plain-34"])
@pytest.mark.parametrize("chosen", imagenet.RECIPES)
def test_every_recipe_describes_a_net(name: str, chosen: str):
    config = imagenet.get_config(f"{name},recipe={chosen}")
    net = Recipe.from_config(config).architecture
    assert net.stem == "imagenet"
    assert Recipe.from_config(config).bn_group_size == 32


def test_modern_stride_is_on_the_3x3_where_there_is_a_1x1():
    config = imagenet.get_config("resnet-50,recipe=modern")
    assert Recipe.from_config(config).architecture.downsample_in == "3x3"
    assert Recipe.from_config(imagenet.get_config("resnet-50")).architecture.downsample_in == "1x1"


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match=r"recipe='moderm'.*nearest: modern"):
        imagenet.get_config("resnet-50,recipe=moderm")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("0", "batch_size=0: the rate and the number of steps follow it"),
        ("none", "batch_size=None: the rate and the number of steps follow it"),
        ("big", "batch_size='big': must be a whole number"),
    ],
)
def test_batch_size_that_nothing_can_follow_is_refused_by_name(wrong: str, message: str):
    with pytest.raises(InputError, match=f"config field {message}"):
        imagenet.get_config(f"resnet-50,recipe=modern,batch_size={wrong}")
