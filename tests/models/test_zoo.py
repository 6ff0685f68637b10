"""Names stand for the papers' networks: their sizes are the published ones."""

import pytest

from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.counting import count

CIFAR = {
    "resnet-20": 269_722,
    "resnet-32": 464_154,
    "resnet-44": 658_586,
    "resnet-56": 853_018,
    "resnet-110": 1_727_962,
    "preact-resnet-164": 1_703_258,
}
VERY_DEEP = {"resnet-1202": 19_421_274, "preact-resnet-1001": 10_327_706}
IMAGENET = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    "resnet-200": 64_673_832,
    "preact-resnet-50": 25_549_352,
    "plain-34": 21_623_848,
}
TABLE_1_MULTIPLY_ADDS = {  # v1 Table 1
    "resnet-18": 1.8e9,
    "resnet-34": 3.6e9,
    "resnet-50": 3.8e9,
    "resnet-101": 7.6e9,
    "resnet-152": 11.3e9,
}


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_net_has_the_published_number_of_parameters(name):
    assert count(zoo.create(name, 10), (32, 32, 3)).num_params == CIFAR[name]


@pytest.mark.parametrize(
    ("name", "axes", "num_params"),
    [
        # The authors' Fixup-ResNet-20: no batch norm (1,376 parameters), 5 scalars a block and 2.
        ("resnet-20", {"norm": "none", "initialization": "fixup"}, 269_722 - 1_376 + 5 * 9 + 2),
        ("resnet-20", {"initialization": "skipinit"}, 269_722 + 9),
        ("resnet-20", {"shortcut": "constant_scaling", "shortcut_scale": 0.5}, 269_722),
        ("plain-20", {"initialization": "looks_linear"}, 269_722),
        ("plain-20", {"parameterization": "dirac"}, 269_722 + 2 * 6 * (16 + 32 + 64)),
        (  # A 1×1 kernel and two batch norms beside each layer; one where its shape changes.
            "plain-20",
            {"parameterization": "repvgg"},
            269_722
            + (6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
            + 2 * (12 * 16 + 11 * 32 + 11 * 64),
        ),
        (  # A bias for the 688 channels that have no batch norm.
            "plain-20",
            {
                "activation": "tailored_relu",
                "norm": "none",
                "initialization": "delta_orthogonal",
            },
            269_722 - 688,
        ),
    ],
)
def test_cures_have_the_parameters_that_they_add(name, axes, num_params):
    assert count(zoo.create(name, 10, **axes), (32, 32, 3)).num_params == num_params


@pytest.mark.weekly
@pytest.mark.parametrize("name", VERY_DEEP)
def test_very_deep_net_has_the_published_number_of_parameters(name):
    assert count(zoo.create(name, 10), (32, 32, 3)).num_params == VERY_DEEP[name]


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_plain_net_has_as_many_parameters_as_its_residual_twin(depth):
    plain, residual = (
        count(zoo.create(f"{family}-{depth}", 10), (32, 32, 3)) for family in ("plain", "resnet")
    )
    assert plain == residual


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_net_has_the_published_number_of_parameters(name):
    assert count(zoo.create(name, 1000), (224, 224, 3)).num_params == IMAGENET[name]


def test_plain_34_has_as_many_parameters_as_resnet_34_with_option_a():
    residual = zoo.create("resnet-34", 1000, option="A")
    assert count(residual, (224, 224, 3)).num_params == IMAGENET["plain-34"]


@pytest.mark.parametrize("name", TABLE_1_MULTIPLY_ADDS)
def test_multiply_adds_are_those_of_table_1(name):
    counted = count(zoo.create(name, 1000), (224, 224, 3)).multiply_adds
    assert counted == pytest.approx(TABLE_1_MULTIPLY_ADDS[name], rel=0.03)


def test_all_names_of_the_zoo_describe_a_net_of_that_depth():
    for name in zoo.names():
        assert zoo.describe(name).depth == int(name.rsplit("-", 1)[1]), name


@pytest.mark.parametrize("family", ["plain", "resnet", "preact-resnet"])
@pytest.mark.parametrize("depth", [164, 1001])
def test_depths_of_the_second_paper_are_bottlenecks(family, depth):
    net = zoo.describe(f"{family}-{depth}")
    assert (net.block, net.option) == ("bottleneck", "B")


def test_branch_overrides_the_choice_where_a_depth_allows_both():
    assert zoo.describe("resnet-164", block="basic").stage_sizes == (27, 27, 27)
    assert zoo.describe("resnet-110", block="bottleneck").stage_sizes == (12, 12, 12)
    assert zoo.describe("resnet-110", block="one_layer").stage_sizes == (36, 36, 36)


def test_prefix_reaches_the_cifar_net_of_an_imagenet_depth():
    assert zoo.describe("cifar-plain-50").stage_sizes == (8, 8, 8)
    assert zoo.describe("plain-50").stem == "imagenet"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("resnet-21", {}, r"name='resnet-21': CIFAR depths.* 6n\+2.*nearest: resnet-20"),
        ("resnet-1", {}, "nearest: resnet-8"),
        ("resnet-49", {}, "nearest: cifar-resnet-50"),
        ("resnet-29", {}, "or block='bottleneck'"),
        ("resnet-1001", {"block": "basic"}, r"6n\+2"),
        ("resent-20", {}, "nearest: resnet-20"),
        ("resnet20", {}, "nearest: resnet-20"),
        ("", {}, "names are plain-N, resnet-N, preact-resnet-N"),
        ("resnet-20", {"shortcuts": "none"}, "nearest: shortcut"),
        ("resnet-20", {"shortcut": "gating"}, "exclusive_gating"),
        ("resnet-20", {"option": "D"}, "allowed are A, B, C"),
        ("resnet-20", {"order": "preact"}, "nearest: full_preact"),
        ("resnet-20", {"activation": "gelu"}, "relu, tanh, sigmoid"),
        ("resnet-20", {"norm": "layer"}, "batch, none"),
        ("resnet-20", {"width": 0}, "width=0"),
        ("resnet-20", {"bn_group_size": 0}, "bn_group_size=0"),
        ("resnet-20", {"dropout_rate": 1.0}, r"\[0, 1\)"),
        ("resnet-20", {"output_stride": 8}, "ImageNet stem"),
        ("resnet-50", {"output_stride": 4}, "8, 16, 32"),
        ("resnet-18", {"block": "bottleneck"}, "has block='basic' only"),
        ("resnet-50", {"downsample_in": "5x5"}, "1x1, 3x3"),
        (
            "preact-resnet-20",
            {"zero_init_last": True},
            "zero_init_last=True: needs order='original' or 'relu_only_preact', not 'full_preact'",
        ),
        ("resnet-20", {"zero_init_last": True, "norm": "none"}, "True: needs norm='batch'"),
        ("plain-20", {"zero_init_last": True}, "True: needs shortcut='identity' or"),
        ("resnet-20", {"zero_init_last": True}, "needs option='B' or 'C', not 'A'"),
        ("resnet-50", {"zero_init_last": True, "order": "relu_before_add"}, "needs order='orig"),
        (
            "resnet-20",
            {"initialization": "fixup", "norm": "none", "order": "relu_before_add"},
            "'fixup': needs order='original' or 'bn_after_add' or",
        ),
        (
            "resnet-20",
            {"initialization": "skipinit", "shortcut": "constant_scaling", "shortcut_scale": 0.0},
            "shortcut_scale=0: nothing would be trained",
        ),
        ("resnet-20", {"initialization": "fixup"}, "'fixup': needs norm='none', not 'batch'"),
        ("plain-20", {"initialization": "fixup", "norm": "none"}, "needs shortcut='identity' or"),
        ("plain-20", {"initialization": "skipinit"}, "'skipinit': needs shortcut='identity' or"),
        (
            "resnet-20",
            {"initialization": "skipinit", "zero_init_last": True},
            "needs zero_init_last=False",
        ),
        ("resnet-20", {"initialization": "looks_linear"}, "needs shortcut='none', not 'identity'"),
        ("plain-20", {"initialization": "looks_linear", "width": 5}, "width=5: must be even"),
        ("resnet-20", {"parameterization": "dirac"}, "'dirac': needs shortcut='none'"),
        ("plain-20", {"parameterization": "repvgg", "norm": "none"}, "needs norm='batch'"),
        ("plain-20", {"parameterization": "diract"}, "nearest: dirac"),
        (
            "plain-20",
            {"activation": "tailored_relu"},
            "activation='tailored_relu': needs norm='none', not 'batch'",
        ),
        ("plain-20", {"tat_eta": 0.5}, "tat_eta=0.5: needs activation='tailored_relu', not 'relu'"),
        ("resnet-20", {"shortcut_scale": 0.5}, "shortcut_scale=0.5: needs shortcut='constant_sc"),
        ("resnet-20", {"branch_scale": 0.5}, "branch_scale=0.5: needs shortcut='constant_scaling'"),
        ("resnet-20", {"gate_bias": -6.0}, "gate_bias=-6.0: needs shortcut='exclusive_gating' or"),
        ("resnet-20", {"dropout_rate": 0.2}, "dropout_rate=0.2: needs shortcut='dropout', not"),
        ("resnet-20", {"downsample_in": "3x3"}, "downsample_in='3x3': needs block='bottleneck'"),
        ("resnet-50", {"option_a_padding": "both"}, "='both': needs option='A', not 'B'"),
    ],
)
def test_wrong_choice_says_what_is_allowed(name, overrides, message):
    with pytest.raises(InputError, match=message) as raised:
        zoo.describe(name, **overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bf16"}, "dtype='bf16': allowed are float32, bfloat16; nearest: bfloat16"),
        ({"dtype": "int32"}, "dtype='int32': allowed are float32, bfloat16"),
        ({"remat": "block"}, "remat='block': allowed are none, activations, blocks; nearest: b"),
    ],
)
def test_network_of_another_dtype_or_remat_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        zoo.create("resnet-20", **options)
