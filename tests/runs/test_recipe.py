"""A config becomes a recipe once: typed, whole, checked, and without JAX."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

from configs import cifar10, digits, imagenet
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, arguments, load_recipe, recipe, write_config
from resnet_jax.training import schedules


def of(argument: str) -> Recipe:
    return Recipe.from_config(digits.get_config(argument))


@pytest.mark.parametrize("config", [digits.get_config(), imagenet.get_config()])
def test_recipe_has_the_configs_paths_and_values(config):
    made = Recipe.from_config(config)
    values = config.to_dict()
    values["dataset"]["exif_orientation"] = values["scan_blocks"] = False  # what None stands for
    assert made.to_dict() == values
    assert made.schedule.learning_rate == config.schedule.learning_rate
    assert Recipe.from_config(made.to_dict()) == made


@pytest.mark.parametrize(
    ("config", "turned"),
    [
        (digits.get_config("resnet-8,dataset.name=image_folder,dataset.image_size=8"), True),
        (imagenet.get_config("resnet-18,dataset.name=pets,dataset.test=test"), True),
        (imagenet.get_config("resnet-18"), False),
        (imagenet.get_config("resnet-18,dataset.name=imagenet2012:5.1.0"), False),
        (digits.get_config("resnet-8"), False),
    ],
)
def test_images_of_ones_own_are_turned_as_exif_says(config, turned):
    assert Recipe.from_config(config).dataset.exif_orientation is turned
    config.dataset.exif_orientation = not turned
    assert Recipe.from_config(config).dataset.exif_orientation is not turned


def test_blank_config_has_every_field_unset_and_of_its_type():
    config = recipe.blank()
    config.streaming = recipe.blank(recipe.Streaming)
    config.converted_from = None
    described = recipe.describe_fields(Recipe.from_config(imagenet.get_config()))
    assert {*arguments._paths(config)} == {path for path, *_ in described}
    for path, wrong in {"seed": 0.5, "model.width": "16", "schedule.boundaries": 1}.items():
        assert arguments.update(config, {path: None})
        with pytest.raises(InputError, match=f"{path}={wrong!r}: must be"):
            arguments.update(config, {path: wrong})


def test_recipe_comes_back_from_the_runs_folder(tmp_path):
    made = of("resnet-20,schedule.boundaries=(100,0.6),dataset.flip=true")
    write_config(tmp_path, made.to_dict(), devices="none")
    assert load_recipe(tmp_path) == made


def test_recipe_cannot_be_changed_and_what_is_made_of_it_is_checked():
    made = of("resnet-20")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 1
    assert made.replace(**{"model.width": 8}).architecture.width == 8
    with pytest.raises(InputError, match=r"dataset.crop_padding=-1: must not be negative"):
        made.replace(**{"dataset.crop_padding": -1})


def test_every_check_is_made_without_jax():
    code = (
        "import sys\n"
        "from configs import digits\n"
        "from resnet_jax.runs import Recipe\n"
        "from resnet_jax.training.run import check_dataset\n"
        "check_dataset(Recipe.from_config(digits.get_config('resnet-20')))\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lists_of_what_may_be_chosen_are_those_of_the_implementations():
    from resnet_jax.data import device_dataset, image_ops
    from resnet_jax.models import resnet
    from resnet_jax.runtime import parallel
    from resnet_jax.training import step

    for listed, implemented in (
        (recipe.REMATS, resnet.REMATS),
        (recipe.ENGINES, parallel.ENGINES),
        (recipe.MEANS, device_dataset.MEANS),
        (recipe.COLOR_MEANS, device_dataset.COLOR_MEANS),
        (recipe.STDS, device_dataset.STDS),
        (recipe.AUGMENTATIONS, image_ops.AUGMENTATIONS),
    ):
        assert set(listed) == set(implemented)
    for mask in recipe.WEIGHT_DECAY_MASKS:
        step.sgd(weight_decay_mask=mask)
    fields = {field.name for field in dataclasses.fields(recipe.Schedule)}
    assert {*inspect.signature(schedules.Schedule).parameters} == {*fields, "num_steps"}


def test_runtime_and_legacy_fields_are_fields():
    paths = {path for path, *_ in recipe.describe_fields(Recipe.from_config(imagenet.get_config()))}
    assert {*recipe.RUNTIME_FIELDS, *recipe.LEGACY_DEFAULTS} <= paths


def test_every_field_of_a_config_is_described_with_type_value_and_meaning():
    described = recipe.describe_fields(of("resnet-20"))
    assert ("schedule.learning_rate", "float", 0.1, "before any drop") in described
    assert all(meaning for *_, meaning in described)


def test_field_that_older_runs_lack_has_the_value_that_stood_for_it():
    old = digits.get_config().to_dict()
    for path in recipe.LEGACY_DEFAULTS:
        section, _, name = path.rpartition(".")
        (old[section] if section else old).pop(name, None)
    made = Recipe.from_config(old)
    assert (made.parallel, made.deterministic, made.remat) == ("jit", False, "none")
    assert recipe.differences(old, {**old, "init_from": None, "freeze": None}) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("resnet-20,optimizer.max_grad_norm=0", "optimizer.max_grad_norm=0.0: must be above 0"),
        ("resnet-20,optimizer.layer_decay=-1", "optimizer.layer_decay=-1.0: must be above 0"),
        ("resnet-20,seed=4294967296", "seed=4294967296: must be at most 4294967295"),
        ("resnet-20,model.width=1000000", "model.width=1000000.* alone take about .* GB"),
        ("resnet-20,batch_size=128000000", "batch_size=128000000: .* alone take about .* GB"),
        ("resnet-20,schedule.decay_factor=1.0", "schedule.decay_factor=1.0: must be below 1"),
        ("resnet-60000000002", "its weights, gradients and momentum alone take about .* GB"),
    ],
)
def test_seed_out_of_range_and_what_no_memory_holds_are_refused_at_once(argument, message):
    with pytest.raises(InputError, match=message):
        of(argument)


def test_largest_papers_networks_are_not_refused():
    deepest = Recipe.from_config(cifar10.get_config("resnet-1202"))
    largest = Recipe.from_config(imagenet.get_config("resnet-200,batch_size=1024"))
    assert [each.architecture.depth for each in (deepest, largest)] == [1202, 200]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (cifar10.get_config("resnet-20,dataset.name=svhn_cropped"), "mirrors svhn_cropped"),
        (cifar10.get_config("resnet-20,dataset.name=emnist/balanced:3.1.0"), "mirrors emnist/bal"),
        (digits.get_config("resnet-20,steps=40"), "warmup_steps=40 do not end within num_steps=40"),
        (digits.get_config("resnet-20,steps=41"), ""),
        (imagenet.get_config("resnet-50,recipe=plateau,steps=30000"), "cannot drop within num_st"),
        (imagenet.get_config("resnet-50,recipe=plateau,steps=30001"), ""),
        (cifar10.get_config("resnet-20,model.name=resnet-110"), "'none' with 110 layers, for wh"),
        (cifar10.get_config("resnet-110"), ""),
        (cifar10.get_config("resnet-20,freeze=batch_norm"), "among them do not normalise"),
        (cifar10.get_config("resnet-20,freeze=batch_norm,init_from=x"), ""),
    ],
)
def test_what_may_not_be_meant_is_told(config, told):
    notes = Recipe.from_config(config).notes()
    assert len(notes) == bool(told)
    assert told in "".join(notes)


@pytest.mark.parametrize(
    ("fields", "turned"),
    [
        ("dataset.name=mine,dataset.image_size=32", True),  # as `prepare_data` makes it of photos
        ("dataset.name=image_folder,dataset.image_size=32", True),
        ("dataset.name=imagenet2012,dataset.image_size=32", False),
        ("dataset.name=cifar10", False),
    ],
)
def test_images_of_any_size_are_turned_as_cameras_meant_them(fields, turned):
    recipe = Recipe.from_config(cifar10.get_config(f"resnet-20,{fields}"))
    assert recipe.dataset.exif_orientation is turned


@pytest.mark.parametrize(
    ("fields", "looped"),
    [
        ("resnet-218", True),
        ("resnet-110", False),
        ("plain-20,model.parameterization=repvgg", True),
        ("plain-20,model.parameterization=repvgg,scan_blocks=false", False),
        ("resnet-20,scan_blocks=true", True),
    ],
)
def test_blocks_run_in_a_loop_where_that_pays_or_as_was_said(fields, looped):
    assert Recipe.from_config(cifar10.get_config(fields)).scan_blocks is looped


def test_field_under_two_names_is_refused():
    with pytest.raises(
        InputError, match=r"'schedule\.learning_rate': given under two names, lr is"
    ):
        cifar10.get_config("resnet-20,lr=0.5,schedule.learning_rate=0.02")
    assert cifar10.get_config("resnet-20,seed=1,seed=2").seed == 2


def test_streams_scales_are_used_by_the_augmentation_of_that_name_alone():
    scale, modern = (imagenet.get_config(f"resnet-18{more}") for more in ("", ",recipe=modern"))
    given = ["streaming.scales", "streaming.shorter_side", "model.width"]
    assert Recipe.from_config(scale).without_effect(given) == []
    assert Recipe.from_config(modern).without_effect(given) == [
        "streaming.scales: has no effect with streaming.augmentation='random_resized_crop'"
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            "dataset.image_size=96",
            "streaming.shorter_side=256, scales=(256, 480): crops of dataset.image_size=96 show "
            "at most 14% of a square image; in v1's proportion: shorter_side=110, "
            "scales=(110, 206)",
        ),
        ("dataset.image_size=96,streaming.scales=(110,206)", "streaming.shorter_side=256: crops"),
        ("dataset.image_size=96,streaming.shorter_side=110", "streaming.scales=(256, 480): crops"),
        ("dataset.image_size=96,streaming.shorter_side=110,streaming.scales=(110,206)", ""),
        ("dataset.image_size=96,recipe=modern", "streaming.shorter_side=256: crops"),
        ("dataset.image_size=96,recipe=modern,streaming.shorter_side=110", ""),
        ("dataset.image_size=192", ""),
    ],
)
def test_stream_whose_crops_are_small_parts_of_images_is_told(fields, told):
    notes = Recipe.from_config(imagenet.get_config(f"resnet-18,{fields}")).notes()
    assert len(notes) == bool(told)
    assert told in "".join(notes)


def test_scales_that_have_no_effect_may_be_smaller_than_crops():
    fields = "recipe=modern,dataset.image_size=288,streaming.shorter_side=320"
    recipe = Recipe.from_config(imagenet.get_config(f"resnet-50,{fields}"))
    assert recipe.dataset.image_size == 288


def test_crop_padding_of_a_stream_is_refused():
    with pytest.raises(InputError, match=r"dataset\.crop_padding=4: a stream's crops are cut"):
        Recipe.from_config(imagenet.get_config("resnet-18,dataset.crop_padding=4"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("optimizer.layer_decay=0.9", "with optimizer.layer_decay=0.9, which tells blocks apart"),
        ("init_from=run,freeze=stem", "with freeze='stem', which tells blocks apart"),
    ],
)
def test_blocks_that_are_not_compiled_as_a_loop_are_told(fields, words):
    (note,) = Recipe.from_config(cifar10.get_config(f"resnet-20,scan_blocks=true,{fields}")).notes()
    assert note.startswith("scan_blocks=True has no effect " + words)
    assert Recipe.from_config(cifar10.get_config(f"resnet-20,{fields}")).notes() == []


def test_imagenet_network_on_small_images_is_told():
    (note,) = Recipe.from_config(cifar10.get_config("resnet-18")).notes()
    assert "leave 1×1 of 32×32 images; the CIFAR network of about that depth is resnet-20" in note
    assert Recipe.from_config(imagenet.get_config("resnet-18")).notes() == []
    assert Recipe.from_config(cifar10.get_config("resnet-56")).notes() == []


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("schedule.boundaries=(0.3,0.6)", "schedule.boundaries", (0.3, 0.6)),
        ("schedule.boundaries=(0.3,0.6),seed=3", "seed", 3),
        ("dataset.data_dir=/data/cats,dogs,seed=3", "dataset.data_dir", "/data/cats,dogs"),
        ("dataset.data_dir='/data/a,b=c',seed=3", "dataset.data_dir", "/data/a,b=c"),
        ("dataset.train=train[:10]+train[20:30]", "dataset.train", "train[:10]+train[20:30]"),
        ("lr=0.05", "schedule.learning_rate", 0.05),
        ("dataset.flip=true", "dataset.flip", True),
    ],
)
def test_values_with_commas_brackets_and_short_names_are_understood(argument, path, value):
    assert arguments.split(f"plain-8,{argument}", "")[1][path] == value
    assert arguments.split(f"plain-8,{argument}", "")[0] == "plain-8"


def test_none_is_no_value_but_where_it_is_a_word():
    made = of("resnet-20,model.bn_group_size=none,schedule.warmup=none,model.norm=none")
    assert (made.model.bn_group_size, made.bn_group_size) == (None, 1)
    assert (made.schedule.warmup, made.architecture.norm) == ("none", "none")
    with pytest.raises(InputError, match="seed=None: must be a whole number"):
        of("resnet-20,seed=none")


def test_paths_begin_at_home_where_they_say_so(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert of("resnet-20,dataset.data_dir=~/sets").dataset.data_dir == "/home/someone/sets"
