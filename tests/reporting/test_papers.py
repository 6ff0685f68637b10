import pytest

from resnet_jax.reporting import naming, papers

RECIPE = {
    "dataset.name": "cifar10",
    "batch_size": 128,
    "num_steps": 64_000,
    "schedule.learning_rate": 0.1,
}


def number(model: str, dataset: str = "cifar10", **axes) -> papers.Number | None:
    fields = {f"model.{axis}": value for axis, value in axes.items()}
    return papers.lookup({**RECIPE, "dataset.name": dataset, "model.name": model, **fields})


@pytest.mark.parametrize("entry", papers.NUMBERS, ids=lambda n: f"{n.model} {n.source}")
def test_every_number_belongs_to_a_net_that_can_be_built(entry: papers.Number):
    axes = {f"model.{axis}": value for axis, value in entry.axes.items()}
    assert naming.architecture({"model.name": entry.model, **axes}) is not None


@pytest.mark.parametrize(
    ("depth", "error"), [(20, 8.75), (32, 7.51), (44, 7.17), (56, 6.97), (110, 6.61), (1202, 7.93)]
)
def test_residual_nets_are_compared_with_table_6(depth: int, error: float):
    assert number(f"resnet-{depth}").error == error
    assert number(f"resnet-{depth}").source == "v1 Table 6"


def test_plain_cifar_nets_have_no_number_in_the_papers():
    assert number("plain-56") is None


def test_numbers_of_another_data_set_or_net_are_not_compared_with():
    assert number("resnet-56", "cifar100") is None
    assert number("resnet-56", "digits") is None
    assert number("resnet-20", option="B") is None
    assert number("<script>") is None


def test_version_of_a_data_set_does_not_keep_it_from_its_number():
    assert number("resnet-56", "cifar10:3.0.2") == number("resnet-56")


def test_one_net_has_one_number_under_either_of_its_names():
    assert number("resnet-110", order="full_preact") == number("preact-resnet-110")
    assert number("preact-resnet-110").error == 6.37


def test_shortcuts_that_fail_in_the_paper_have_no_error():
    assert number("resnet-110", shortcut="dropout").error is None
    assert number("resnet-110", shortcut="dropout").above == 20
    assert number("plain-110").above == 60
    assert number("resnet-110", option="C").error == 12.22


def test_batch_of_64_has_its_own_number():
    settings = {**RECIPE, "model.name": "preact-resnet-1001"}
    assert papers.lookup(settings).error == 4.92
    small = papers.lookup({**settings, "batch_size": 64})
    assert small.error == 4.62
    assert papers.recipe_diff({**settings, "batch_size": 64}, small) == [
        "num_steps 64,000, not 156,250"
    ]
    own = {
        "num_steps": 156_250, "model.bn_group_size": 32, "schedule.boundaries": (0.4, 0.605),
        "schedule.warmup": "none", "optimizer.nesterov": True, "optimizer.weight_decay_mask": "all",
        "dataset.mean": "channel", "dataset.std": "channel",
    }  # fmt: skip
    assert papers.recipe_diff({**settings, "batch_size": 64, **own}, small) == []


def test_papers_own_recipe_is_not_the_releases():
    settings = {
        **RECIPE, "model.name": "preact-resnet-1001", "batch_size": 64, "num_steps": 156_250,
        "optimizer.nesterov": False, "optimizer.weight_decay_mask": "kernels",
        "dataset.mean": "pixel", "dataset.std": "none", "model.initialization": None,
        "schedule.warmup": "constant",
    }  # fmt: skip
    small = papers.lookup(settings)
    assert small.source == "v2 Table 4, the authors' release"
    assert set(papers.recipe_diff(settings, small)) == {
        "schedule.warmup constant, not none",
        "optimizer.nesterov false, not true",
        "optimizer.weight_decay_mask kernels, not all",
        "dataset.mean pixel, not channel",
        "dataset.std none, not channel",
        "model.initialization default, not he_normal_fan_out",
    }


@pytest.mark.parametrize(
    ("model", "warmup", "expected"),
    [("resnet-20", "constant", "none"), ("preact-resnet-110", "none", "constant")],
)
def test_warm_up_is_a_departure(model: str, warmup: str, expected: str):
    settings = {**RECIPE, "model.name": model, "schedule.warmup": warmup}
    (departure,) = papers.recipe_diff(settings, papers.lookup(settings))
    assert departure == f"schedule.warmup {warmup}, not {expected}"


@pytest.mark.parametrize(
    ("model", "warmup", "field", "value"),
    [
        ("resnet-110", "until_error", "warmup_error", 0.05),
        ("resnet-110", "until_error", "warmup_learning_rate", 0.0001),
        ("preact-resnet-110", "constant", "warmup_steps", 30_000),
    ],
)
def test_warm_up_of_another_length_is_a_departure(model: str, warmup: str, field: str, value):
    settings = {**RECIPE, "model.name": model, "schedule.warmup": warmup}
    number = papers.lookup(settings)
    assert papers.recipe_diff(settings, number) == []
    (departure,) = papers.recipe_diff({**settings, f"schedule.{field}": value}, number)
    assert departure.startswith(f"schedule.{field} ")


@pytest.mark.parametrize(
    ("fields", "departures"),
    [
        ({"warmup": "constant", "warmup_steps": 400, "warmup_learning_rate": 0.01}, 0),
        ({"warmup": "until_error", "warmup_error": 0.8, "warmup_learning_rate": 0.01}, 0),
        ({"warmup": "until_error", "warmup_error": 0.01, "warmup_learning_rate": 0.0001}, 2),
        ({"warmup": "linear", "warmup_steps": 30_000}, 2),
        ({"warmup": "none"}, 1),
    ],
)
def test_warm_up_of_v2s_baselines_is_that_of_either_paper(fields: dict, departures: int):
    warmup = {f"schedule.{field}": value for field, value in fields.items()}
    settings = {**RECIPE, "model.name": "resnet-164", **warmup}
    found = papers.recipe_diff(settings, papers.lookup(settings))
    assert len(found) == departures
    assert all(phrase.startswith("schedule.warmup") for phrase in found)


@pytest.mark.parametrize("num_steps", [64_000, 2000])
@pytest.mark.parametrize(
    ("warmup", "source"), [("until_error", "v1 Table 6"), ("constant", "v2 Table 1")]
)
def test_run_is_compared_with_the_paper_whose_warm_up_it_has(
    warmup: str, source: str, num_steps: int
):
    settings = {**RECIPE, "model.name": "resnet-110", "schedule.warmup": warmup}
    settings["num_steps"] = num_steps
    found = papers.lookup(settings)
    assert found.source == source
    assert len(papers.recipe_diff(settings, found)) == (num_steps != 64_000)


def test_boundaries_may_be_steps_as_in_the_paper():
    settings = {**RECIPE, "model.name": "resnet-20", "schedule.boundaries": [32_000, 48_000]}
    assert papers.recipe_diff(settings, number("resnet-20")) == []
    (departure,) = papers.recipe_diff(
        {**settings, "schedule.boundaries": [32_000, 0.8]}, number("resnet-20")
    )
    assert departure == "schedule.boundaries [32000, 0.8], not [0.5, 0.75]"


@pytest.mark.parametrize(
    ("field", "value"), [("dataset.flip", False), ("streaming.shorter_side", 480)]
)
def test_views_of_imagenet_are_of_its_recipe(field: str, value):
    settings = {"dataset.name": "imagenet2012", "model.name": "resnet-50", field: value}
    (departure,) = papers.recipe_diff(settings, papers.lookup(settings))
    assert departure.startswith(f"{field} ")


def test_network_whose_activation_needs_its_initial_weights_has_no_number():
    cure = {"norm": "none", "activation": "tailored_relu", "initialization": "delta_orthogonal"}
    settings = {**RECIPE, "model.name": "plain-20", **{f"model.{k}": v for k, v in cure.items()}}
    assert papers.lookup(settings) is None


def test_number_of_a_named_table_comes_first():
    settings = {**RECIPE, "model.name": "resnet-110"}
    assert papers.lookup(settings).std == 0.16
    for source in ("v2 Table 1", "v2 Table 2", "v2 Table 3"):
        found = papers.lookup(settings, source)
        assert (found.source, found.error, found.std) == (source, 6.61, None)


def test_10_crop_numbers_say_so():
    plain = papers.lookup({"model.name": "plain-34", "dataset.name": "imagenet2012"})
    assert plain.error == 28.54
    assert papers.recipe_diff({}, plain) == ["the paper tests with 10-crop"]


def test_recipe_of_the_paper_has_no_departures():
    assert papers.recipe_diff(RECIPE, number("resnet-20")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("dataset.std", "channel"), ("optimizer.weight_decay_mask", "all"),
     ("init_from", "runs/other"), ("freeze", "stem"), ("dataset.test", "train[:10000]")],
)  # fmt: skip
def test_data_decay_and_foreign_weights_are_departures_too(field: str, value: str):
    (departure,) = papers.recipe_diff({**RECIPE, field: value}, number("resnet-20"))
    assert departure.startswith(f"{field} {value}, not ")


def test_departures_name_field_value_and_what_the_paper_has():
    settings = {**RECIPE, "num_steps": 2000, "schedule.learning_rate": 0.05}
    assert papers.recipe_diff(settings, number("resnet-20")) == [
        "num_steps 2,000, not 64,000",
        "schedule.learning_rate 0.05, not 0.1",
    ]
