"""Every tensor of a PyTorch net finds its place, goes back unchanged, or is named in an error."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax.errors import InputError
from resnet_jax.interop import pytorch_names
from resnet_jax.models import zoo

Shapes = dict[str, tuple[int, ...]]


# The names and shapes of the two libraries' nets, as PyTorch prints them.


def norm(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def basic(name: str, inputs: int, channels: int) -> Shapes:
    return {
        f"{name}.conv1.weight": (channels, inputs, 3, 3),
        **norm(f"{name}.bn1", channels),
        f"{name}.conv2.weight": (channels, channels, 3, 3),
        **norm(f"{name}.bn2", channels),
    }


def bottleneck(name: str, inputs: int, channels: int) -> Shapes:
    narrow = channels // 4
    return {
        f"{name}.conv1.weight": (narrow, inputs, 1, 1),
        **norm(f"{name}.bn1", narrow),
        f"{name}.conv2.weight": (narrow, narrow, 3, 3),
        **norm(f"{name}.bn2", narrow),
        f"{name}.conv3.weight": (channels, narrow, 1, 1),
        **norm(f"{name}.bn3", channels),
    }


def layers(block, sizes, channels, inputs, projection=None) -> Shapes:
    shapes = {}
    for stage, (size, outputs) in enumerate(zip(sizes, channels, strict=True), start=1):
        for unit in range(size):
            name = f"layer{stage}.{unit}"
            shapes |= block(name, inputs, outputs)
            if projection and inputs != outputs:
                shapes[f"{name}.{projection}.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= norm(f"{name}.{projection}.1", outputs)
            inputs = outputs
    return shapes


def torchvision(block, *sizes, num_classes=1000) -> Shapes:
    channels = [width * (4 if block is bottleneck else 1) for width in (64, 128, 256, 512)]
    return {
        "conv1.weight": (64, 3, 7, 7),
        **norm("bn1", 64),
        **layers(block, sizes, channels, 64, "downsample"),
        "fc.weight": (num_classes, channels[-1]),
        "fc.bias": (num_classes,),
    }


def akamaster(size: int, projection=None, width=16, colours=3, num_classes=10) -> Shapes:
    channels = (width, 2 * width, 4 * width)
    return {
        "conv1.weight": (width, colours, 3, 3),
        **norm("bn1", width),
        **layers(basic, (size,) * 3, channels, width, projection),
        "linear.weight": (num_classes, 4 * width),
        "linear.bias": (num_classes,),
    }


def fill(shapes: Shapes) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0)
    return {
        name: np.array(7)
        if name.endswith("num_batches_tracked")
        else noise.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def empty(shapes: Shapes) -> dict[str, np.ndarray]:
    return {
        name: np.zeros(shape, np.int64 if name.endswith("tracked") else np.float32)
        for name, shape in shapes.items()
    }


BOTH = {"option_a_padding": "both"}
V1_5 = {"downsample_in": "3x3"}


@pytest.mark.parametrize(
    ("shapes", "name", "overrides"),
    [
        (torchvision(basic, 2, 2, 2, 2), "resnet-18", {}),
        (torchvision(basic, 3, 4, 6, 3), "resnet-34", {}),
        (torchvision(bottleneck, 3, 4, 6, 3), "resnet-50", V1_5),
        (torchvision(bottleneck, 3, 4, 23, 3), "resnet-101", V1_5),
        (torchvision(bottleneck, 3, 8, 36, 3), "resnet-152", V1_5),
        (akamaster(3), "resnet-20", BOTH),
        (akamaster(5, num_classes=100), "resnet-32", BOTH),
        (akamaster(18), "resnet-110", BOTH),
        (akamaster(3, "shortcut"), "resnet-20", {"option": "B"}),
        (akamaster(1, width=4, colours=1), "resnet-8", {**BOTH, "width": 4}),
        # Depths that the zoo's short names give to other nets.
        (akamaster(8), "cifar-resnet-50", BOTH),
        (akamaster(27), "resnet-164", {**BOTH, "block": "basic", "option": "A"}),
    ],
)
def test_net_is_known_by_its_names_and_shapes(shapes, name, overrides):
    weights = pytorch_names.from_torch(empty(shapes))
    assert (weights.name, weights.overrides) == (name, overrides)
    classifier = "fc.bias" if "fc.bias" in shapes else "linear.bias"
    assert weights.num_classes == shapes[classifier][0]


@pytest.mark.weekly
def test_resnet_1202_is_known():
    assert pytorch_names.from_torch(empty(akamaster(200))).name == "resnet-1202"


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [
        (torchvision(basic, 2, 2, 2, 2), "torchvision"),
        (torchvision(bottleneck, 3, 4, 6, 3, num_classes=5), "torchvision"),
        (akamaster(3), "akamaster"),
        (akamaster(2, "shortcut"), "akamaster"),
    ],
)
def test_there_and_back_is_exact(shapes, layout):
    tensors = fill(shapes)
    weights = pytorch_names.from_torch(tensors)
    net = zoo.describe(weights.name, **weights.overrides)
    back = pytorch_names.to_torch(weights.variables, net, layout, num_batches=7)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_values_land_where_they_belong():
    tensors = fill(akamaster(2, "shortcut"))
    variables = pytorch_names.from_torch(tensors).variables
    params, stats = variables["params"], variables["batch_stats"]
    for ours, theirs in [
        (params["stem"]["kernel"], tensors["conv1.weight"].transpose(2, 3, 1, 0)),
        (params["stem_norm"]["scale"], tensors["bn1.weight"]),
        (params["stage3_unit2"]["norm2"]["bias"], tensors["layer3.1.bn2.bias"]),
        (stats["stage3_unit2"]["norm2"]["mean"], tensors["layer3.1.bn2.running_mean"]),
        (
            stats["stage2_unit1"]["projection_norm"]["var"],
            tensors["layer2.0.shortcut.1.running_var"],
        ),
        (params["classifier"]["kernel"], tensors["linear.weight"].T),
    ]:
        np.testing.assert_array_equal(ours, theirs)


def test_wrapped_state_dict_of_a_parallel_net_is_the_same():
    tensors = fill(akamaster(1))
    saved = {"state_dict": {f"module.{name}": t for name, t in tensors.items()}, "best_prec1": 91.7}
    plain, wrapped = pytorch_names.from_torch(tensors), pytorch_names.from_torch(saved)
    assert wrapped[:3] == plain[:3]
    jax.tree.map(np.testing.assert_array_equal, wrapped.variables, plain.variables)


def test_old_files_without_counters_are_whole():
    tensors = {k: v for k, v in fill(akamaster(1)).items() if not k.endswith("tracked")}
    assert pytorch_names.from_torch(tensors).name == "resnet-8"


def apply(name, variables, images, **overrides):
    return zoo.create(name, **overrides).apply(variables, images)


@pytest.mark.parametrize("width", [4, 3])
def test_net_padded_at_the_end_is_written_as_the_net_padded_on_both_sides(width):
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    model = zoo.create("resnet-14", width=width)
    variables = model.init(jax.random.key(0), images)
    # Different statistics for each channel, so that a wrong number shows.
    noise = np.random.default_rng(2)
    variables = jax.tree.map(
        lambda v: np.float32(noise.uniform(0.5, 1.5, v.shape)) if v.ndim == 1 else v, variables
    )
    written = pytorch_names.to_torch(variables, model.architecture, "akamaster")
    weights = pytorch_names.from_torch(written)
    assert weights.overrides == {"option_a_padding": "both", "width": width}
    logits = zoo.create(weights.name, **weights.overrides).apply(weights.variables, images)
    np.testing.assert_allclose(logits, model.apply(variables, images), rtol=1e-4, atol=1e-5)
    unmoved = zoo.create(weights.name, **weights.overrides).apply(variables, images)
    assert np.abs(unmoved - logits).max() > 0.1


def changed(**tensors):
    """The tensors of a ResNet-8 with some of them replaced, or left out where None."""
    state = fill(akamaster(1)) | {name.replace("__", "."): t for name, t in tensors.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (changed(layer2__0__bn1__bias=None), r"missing: layer2.0.bn1.bias$"),
        (changed(conv1__weight=None), r"missing: conv1.weight"),
        (changed(linear__weight=None), r"missing: linear.weight"),
        (changed(linear__bias=None), r"missing: linear.bias"),
        (changed(layer1__0__se__weight=np.zeros(3)), r"surplus: layer1.0.se.weight$"),
        (changed(layer1__0__conv3__weight=np.zeros(3)), r"surplus: layer1.0.conv3.weight$"),
        (
            changed(layer1__0__conv2__weight=np.zeros((16, 16, 5, 5), np.float32)),
            r"misshapen: layer1.0.conv2.weight \[16, 16, 5, 5\] instead of \[16, 16, 3, 3\]$",
        ),
        (changed(conv1__weight=np.zeros(3)), r"misshapen: conv1.weight \[3\]"),
        (changed(linear__weight=np.zeros(3)), r"misshapen: linear.weight \[3\]"),
        (
            changed(bn1__num_batches_tracked=np.zeros(2)),
            r"misshapen: bn1.num_batches_tracked \[2\] instead of \[\]",
        ),
        (changed(bn1__bias=np.zeros(16, np.int8)), r"not floating-point: bn1.bias \(int8\)"),
        (changed(bn1__bias=np.full(16, np.nan, np.float32)), r"not finite: bn1.bias$"),
        (changed(bn1__running_var=-np.ones(16, np.float32)), r"negative: bn1.running_var$"),
        (
            changed(bn1__bias=None, extra=np.zeros(1), bn1__weight=np.zeros(3, np.float32)),
            r"missing: bn1.bias; surplus: extra; misshapen: bn1.weight \[3\] instead of \[16\]$",
        ),
        (changed(bn1__bias="text"), r"'bn1.bias' is a str, not a tensor"),
        (
            changed(bn1__bias=jax.numpy.ones(16)),
            r"'bn1.bias' is a \w+, not a tensor in a NumPy array$",
        ),
        ({}, "nothing"),
        ({"state_dict": 3}, "state_dict is a int"),
        ({"encoder.weight": np.zeros(3)}, r"fc.weight.*linear.weight.*there is encoder.weight"),
        (fill(akamaster(1)) | fill(basic("layer3.1", 64, 64)), r"1-1-2 basic blocks"),
        (
            fill(torchvision(basic, 1, 1, 1, 1)),
            r"torchvision has no network with 1-1-1-1 basic blocks",
        ),
    ],
)
def test_tensor_that_does_not_fit_is_named_in_one_line(tensors, message):
    with pytest.raises(InputError, match=message) as raised:
        pytorch_names.from_torch(tensors)
    assert "\n" not in str(raised.value)


def test_many_tensors_of_a_kind_are_summarised():
    tensors = {name: t for name, t in fill(akamaster(1)).items() if not name.startswith("layer2")}
    tensors |= {f"layer2.0.{name}": np.zeros(1) for name in "abcdefgh"}
    with pytest.raises(
        InputError, match=r"missing: layer2.0.\S+, .* and 6 more; surplus: .* 4 more"
    ):
        pytorch_names.from_torch(tensors)


@pytest.mark.parametrize(
    ("name", "overrides", "layout", "message"),
    [
        ("plain-8", {}, "akamaster", "shortcut='none'"),
        ("preact-resnet-8", {}, "akamaster", "order='full_preact'"),
        ("resnet-11", {"block": "bottleneck"}, "akamaster", "block='bottleneck'"),
        ("resnet-8", {"option": "C"}, "akamaster", "option='C'.*'A' or 'B'"),
        ("resnet-8", {"norm": "none"}, "akamaster", "norm='none'"),
        ("resnet-8", {"activation": "tanh"}, "akamaster", "activation='tanh'"),
        ("resnet-8", {}, "torchvision", "stem='cifar'"),
        ("resnet-50", {}, "torchvision", "downsample_in='1x1'"),
        ("resnet-34", {"option": "A"}, "torchvision", "option='A'"),
        ("resnet-18", {"output_stride": 16}, "torchvision", "output_stride=16"),
        ("resnet-8", {}, "timm", "layout='timm': allowed are torchvision, akamaster"),
    ],
)
def test_net_that_the_library_has_not_is_not_written(name, overrides, layout, message):
    with pytest.raises(InputError, match=message):
        pytorch_names.to_torch({}, zoo.describe(name, **overrides), layout)


def test_weights_are_float32_whatever_the_file_has():
    tensors = {k: v.astype(np.float16) for k, v in fill(akamaster(1)).items()}
    variables = pytorch_names.from_torch(
        tensors | {"bn1.num_batches_tracked": np.array(3)}
    ).variables
    assert {leaf.dtype for leaf in flatten_dict(variables).values()} == {np.dtype(np.float32)}


def test_how_kernels_were_drawn_does_not_matter_to_their_names():
    tensors = []
    for initialization in ("he_normal", "he_normal_fan_out"):
        model = zoo.create("resnet-8", initialization=initialization)
        images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
        shapes = jax.eval_shape(
            lambda x, m=model: m.init(jax.random.key(0), x, train=False), images
        )
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        tensors.append(pytorch_names.to_torch(zeros, model.architecture, "akamaster"))
    assert tensors[0].keys() == tensors[1].keys()
