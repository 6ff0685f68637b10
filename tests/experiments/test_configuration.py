"""A wrong config ends in one line that names the field, and exit code 2, before anything starts."""

import pytest

from configs import cifar10, cifar100, digits
from resnet_jax import runs
from resnet_jax.errors import InputError
from resnet_jax.runs import Recipe, load_recipe, recipe, write_config
from resnet_jax.training.run import check_dataset

WRONG = [
    ("seed=None", "seed=None: must be a whole number"),
    ("batch_size=0", "batch_size=0: must be at least 1"),
    ("num_steps=-5", "num_steps=-5: must be at least 1"),
    ("log_every=0", "log_every=0"),
    ("max_to_keep=0", "max_to_keep=0"),
    ("num_devices=0", "num_devices=0"),
    ("steps_per_dispatch=0", "steps_per_dispatch=0: must be at least 1"),
    ("seed=-1", "seed=-1: must not be negative"),
    ("optimizer.momentum=1.0", "optimizer.momentum=1.0: must be in [0, 1)"),
    ("optimizer.weight_decay=-1e-4", "optimizer.weight_decay=-0.0001: must not be negative"),
    (
        "optimizer.weight_decay_mask=kernel",
        "optimizer.weight_decay_mask='kernel': allowed are kernels, all",
    ),
    ("label_smoothing=1.0", "label_smoothing=1.0: must be in [0, 1)"),
    ("remat=block", "remat='block': allowed are none, activations, blocks; nearest: blocks"),
    ("model.dtype=float16", "model.dtype='float16': allowed are float32, bfloat16"),
    ("model.bn_group_size=48", "model.bn_group_size=48: batches of 128"),
    ("batch_size=100", "; set model.bn_group_size=50, or batch_size to a multiple of 64"),
    ("batch_size=101", "; set model.bn_group_size=101, or"),
    ("grad_accum_steps=3", "batch_size=128: not a multiple of grad_accum_steps=3"),
    ("grad_accum_steps=4", "model.bn_group_size=64: batches of 32"),
    ("grad_accum_steps=4", "; set model.bn_group_size=32, or batch_size to a multiple of 256"),
    ("model.name=resnet-21", "model.name='resnet-21'"),
    ("model.name=resent-20", "nearest: resnet-20"),
    ("model.order=preact", "model.order='preact': allowed are"),
    ("model.width=0", "model.width=0: must be at least 1"),
    ("model.bn_group_size=-4", "model.bn_group_size=-4"),
    ("model.dropout_rate=1.5", "model.dropout_rate=1.5"),
    ("model.shortcut=identify", "nearest: identity"),
    ("model.option=D", "model.option='D': allowed are A, B, C"),
    ("model.zero_init_last=True,model.norm=none", "model.zero_init_last=True"),
    ("dataset.name=digit", "nearest: digits"),
    ("dataset.train=trian", "trian"),
    ("dataset.train=train[:0]", "empty"),
    ("dataset.mean=pixels", "dataset.mean='pixels'"),
    ("dataset.crop_padding=-1", "dataset.crop_padding=-1"),
    ("dataset.image_size=32", "image_size=32"),
    ("dataset.name=image_folder", "data_dir"),
    ("schedule.name=step", "schedule.name='step': allowed are steps, plateau, cosine, constant"),
    ("schedule.name=plateau", "dataset.validation=None"),
    ("schedule.learning_rate=0.0", "schedule.learning_rate=0.0: must be above 0"),
    ("schedule.boundaries=(2.5)", "schedule.boundaries"),
    ("schedule.boundaries=(0.9,0.7)", "ascending order"),
    ("schedule.boundaries=(0.5,1.5)", "schedule.boundaries"),
    ("schedule.warmup_error=2.0", "schedule.warmup_error=2.0"),
    ("schedule.warmup=linear,schedule.warmup_steps=0", "schedule.warmup_steps=0"),
]


def check(argument):
    check_dataset(Recipe.from_config(digits.get_config(f"resnet-20,{argument}")))


@pytest.mark.parametrize(("argument", "message"), WRONG)
def test_impossible_value_is_one_line_that_names_the_field(argument, message):
    with pytest.raises(InputError) as raised:
        check(argument)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("get_config", [cifar10.get_config, cifar100.get_config])
def test_split_by_name_holds_5000_images_back(get_config):
    dataset = get_config("resnet-20,split=45k/5k,seed=3").dataset
    assert (dataset.train, dataset.validation) == ("train[:45000]", "train[45000:]")
    assert get_config("resnet-20,split=50k").to_dict() == get_config("resnet-20").to_dict()
    with pytest.raises(InputError, match="split='45k': allowed are 50k, 45k/5k"):
        get_config("resnet-20,split=45k")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("resnet-20,sede=1", r"no config field 'sede' \(nearest: seed\); allowed are"),
        ("resnet-20,model.nmae=x", "'model.nmae' \\(nearest: model.name\\); allowed in model are"),
        ("resnet-20,modle.name=x", "'modle.name' \\(nearest: model.name\\); allowed"),
        ("resnet-20,momentum=0.8", "nearest: optimizer.momentum"),
        ("resnet-20,model.learning_rate=1.0", "nearest: schedule.learning_rate"),
        (
            "resnet-20,optimizer.name=adam",
            "are layer_decay, max_grad_norm, momentum, nesterov, weight_decay, weight_decay_mask$",
        ),
        ("resnet-20,seed.x=1", "no config field 'seed.x'"),
        ("resnet-20,optimizer=adam", "'optimizer' is a section; .*optimizer.momentum"),
        ("resnet-20,seed=one", "seed='one': must be a whole number, such as 1000$"),
        ("resnet-20,dataset.flip=maybe", "flip='maybe': must be true or false$"),
        ("resnet-20,num_steps=1e3", "num_steps=1000.0: must be a whole number, such as 1000$"),
        ("resnet-20,plain-20", "expected key=value"),
    ],
)
def test_misspelt_argument_is_named(argument, message):
    with pytest.raises(InputError, match=message):
        digits.get_config(argument)


@pytest.mark.parametrize(
    "argument", [None, "plain-56", "preact-resnet-164,model.option=B", "seed=3,num_steps=10"]
)
def test_given_configs_are_sound(argument):
    assert check_dataset(Recipe.from_config(digits.get_config(argument))) is None


def test_recipe_is_that_of_the_papers():  # v1 §4.2
    config = cifar10.get_config("resnet-56")
    assert (config.batch_size, config.num_steps, config.model.bn_group_size) == (128, 64_000, 64)
    assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 1e-4)
    assert config.schedule.warmup == "none"
    assert cifar10.get_config("resnet-110").schedule.warmup == "until_error"
    assert cifar10.get_config("preact-resnet-110").schedule.warmup == "constant"  # v2, appendix


def test_fields_that_say_where_a_run_runs_may_change():
    old, new = (digits.get_config().to_dict() for _ in range(2))
    new["num_devices"], new["dataset"]["data_dir"] = 4, "elsewhere"
    assert recipe.differences(old, new) == []
    new["dataset"]["flip"] = True
    assert recipe.differences(old, new) == ["dataset.flip: False, now True"]


def test_runs_of_earlier_versions_are_read(tmp_path):
    config = digits.get_config().to_dict()
    del config["parallel"]
    for switch, now in ((False, "none"), (True, "blocks")):
        runs.write_json(tmp_path / "config.json", {"config": {**config, "remat": switch}})
        found = load_recipe(tmp_path)
        assert (found.parallel, found.remat) == ("jit", now)


def test_missing_flag_is_named(run_command):
    done = run_command("train", "--config=configs/digits.py")
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    assert "workdir" in done.stderr


def test_help_is_no_failure(run_command):
    assert run_command("train", "--help").code == 0


def test_fields_of_a_config_are_printed_with_value_type_and_meaning(run_command):
    done = run_command("train", "--config=configs/digits.py:resnet-20,lr=0.05", "--help_config")
    assert done.code == 0
    assert "schedule.learning_rate = 0.05  (float)\n    before any drop\n" in done.stdout


def test_home_is_found_in_a_flag(run_command, tmp_path):
    """The folder holds other runs, which is said of the path that was meant."""
    write_config(tmp_path / "runs" / "other", digits.get_config().to_dict(), devices="none")
    done = run_command(
        "train", "--config=configs/digits.py", "--workdir=~/runs", HOME=str(tmp_path)
    )
    assert f"workdir='{tmp_path}/runs' holds folders of runs" in done.stderr
