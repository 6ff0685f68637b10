"""PyTorch twins of our nets, written here from the papers, compute and learn the same."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from resnet_jax.interop import pytorch_names, weight_files
from resnet_jax.models import zoo
from resnet_jax.training import schedules, state, step

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.torch

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(autouse=True)
def same_weights_in_whatever_order_tests_run():
    torch.manual_seed(0)


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def pad_channels(x, outputs: int, stride: int, before: int = 0):
    """Option A of v1 §3.3: every other pixel, and zeros for the new channels."""
    after = outputs - x.shape[1] - before
    return functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after))


class CifarUnit(nn.Module):
    """v1 Figure 2 and v2 Figure 4(e); layers are called as ours are."""

    def __init__(self, family: str, inputs: int, outputs: int, first: bool):
        super().__init__()
        self.family, self.outputs, self.first = family, outputs, first
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = conv(inputs, outputs, 3, self.stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        if family != "preact-resnet":
            self.norm2 = nn.BatchNorm2d(outputs)
        elif not first:
            self.before_norm = nn.BatchNorm2d(inputs)

    def forward(self, x):
        shortcut = pad_channels(x, self.outputs, self.stride)
        if self.family == "preact-resnet":
            if not self.first:
                x = functional.relu(self.before_norm(x))
            return shortcut + self.conv2(functional.relu(self.norm1(self.conv1(x))))
        branch = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(branch if self.family == "plain" else shortcut + branch)


class CifarNet(nn.Module):
    """v1 §4.2: a 3×3, three stages, average pooling and a classifier."""

    def __init__(self, family: str, units: int, width: int):
        super().__init__()
        self.stem, self.stem_norm = conv(3, width, 3), nn.BatchNorm2d(width)
        self.units, inputs = nn.ModuleDict(), width
        for stage in (1, 2, 3):
            for unit in range(1, units + 1):
                outputs = width * 2 ** (stage - 1)
                name = f"stage{stage}_unit{unit}"
                self.units[name] = CifarUnit(family, inputs, outputs, stage == unit == 1)
                inputs = outputs
        if family == "preact-resnet":
            self.final_norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, 10)

    def forward(self, x):
        x = functional.relu(self.stem_norm(self.stem(x)))
        for unit in self.units.values():
            x = unit(x)
        if hasattr(self, "final_norm"):
            x = functional.relu(self.final_norm(x))
        return self.classifier(x.mean((2, 3)))


def to_ours(tensor) -> np.ndarray:
    """A PyTorch weight in the order of our axes."""
    array = tensor.detach().numpy()
    return {4: lambda: array.transpose(2, 3, 1, 0), 2: lambda: array.T}.get(
        array.ndim, lambda: array
    )()


def variables_of(twin: CifarNet, shapes) -> dict:
    """The twin's weights as our variables; every one of them is used."""
    tensors = {k.removeprefix("units."): v for k, v in twin.state_dict().items()}
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    leaves |= {"mean": "running_mean", "var": "running_var"}

    def take(path, shape):
        *modules, leaf = (entry.key for entry in path[1:])
        value = to_ours(tensors.pop(".".join([*modules, leaves[leaf]])))
        assert value.shape == shape.shape
        return jnp.array(value)

    variables = jax.tree_util.tree_map_with_path(take, shapes)
    assert not tensors
    return variables


def randomise(module: nn.Module) -> nn.Module:
    """Gives batch norms scales, biases and statistics that are not 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in (
                (part.weight, 0.5, 1.5),
                (part.bias, -0.3, 0.3),
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high)
    return module


def random_images(batch: int, size: int) -> np.ndarray:
    return torch.randn(batch, size, size, 3).numpy()


def nchw(images: np.ndarray):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def twins(family: str, units: int = 2, width: int = 8):
    """A PyTorch net, our model and its variables, with the same random weights."""
    twin = randomise(CifarNet(family, units, width))
    model = zoo.create(f"{family}-{6 * units + 2}", width=width)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return twin, model, variables_of(twin, shapes)


FAMILIES = pytest.mark.parametrize("family", ["plain", "resnet", "preact-resnet"])


@FAMILIES
def test_same_weights_give_the_same_logits_in_training_and_evaluation(family):
    twin, model, variables = twins(family)
    images = random_images(8, 16)
    with torch.no_grad():
        evaluated = twin.eval()(nchw(images)).numpy()
        trained = twin.train()(nchw(images)).numpy()
    np.testing.assert_allclose(model.apply(variables, images), evaluated, atol=1e-4)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits, trained, atol=1e-4)
    assert np.abs(trained - evaluated).max() > 0.1
    expected = flatten_dict(variables_of(twin, variables)["batch_stats"])
    for path, value in flatten_dict(updated["batch_stats"]).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-5, err_msg=str(path))


@pytest.mark.slow
@FAMILIES
def test_ten_steps_of_sgd_are_the_same(family):
    # Rounding puts a value near zero on either side of a ReLU now and then, which parts the two a
    # little; deeper nets, above all plain ones, then multiply it at every step.
    twin, model, variables = twins(family, units=1)
    batches = [(random_images(16, 16), torch.randint(10, (16,)).numpy()) for _ in range(10)]
    ours, trained = sgd_of_ours(model, variables, batches)
    theirs = sgd_of_pytorch(twin, batches)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    expected = flatten_dict(variables_of(twin, variables))
    for path, value in flatten_dict(trained).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-2, err_msg=str(path))


RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.1  # so much decay that leaving it out would show


def sgd_of_ours(model, variables, batches) -> tuple[list[float], dict]:
    optimizer = step.sgd(MOMENTUM, DECAY)
    schedule = schedules.Schedule("constant", num_steps=10, learning_rate=RATE)
    current = state.create(jax.random.key(0), model, (16, 16, 3), optimizer, schedule)
    current = current.replace(**variables)
    train_step = jax.jit(step.make_train_step(model, optimizer, schedule))
    losses = []
    for images, labels in batches:
        current, metrics = train_step(current, (images, labels), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return losses, current.variables


def sgd_of_pytorch(twin: nn.Module, batches) -> list[float]:
    kernels = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    twin.train()
    losses = []
    for images, labels in batches:
        loss = functional.cross_entropy(twin(nchw(images)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class PublishedUnit(nn.Module):
    """A unit whose layers are called as in the libraries that publish weights."""

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool, projection: str):
        super().__init__()
        self.outputs, self.stride, self.projection = outputs, stride, projection
        layers = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        if bottleneck:
            narrow = outputs // 4
            # The later "v1.5": v1 strides in the first 1×1.
            layers = [(inputs, narrow, 1, 1), (narrow, narrow, 3, stride), (narrow, outputs, 1, 1)]
        self.count = len(layers)
        for number, layer in enumerate(layers, start=1):
            setattr(self, f"conv{number}", conv(*layer))
            setattr(self, f"bn{number}", nn.BatchNorm2d(layer[1]))
        if projection and inputs != outputs:
            norm = nn.BatchNorm2d(outputs)
            setattr(self, projection, nn.Sequential(conv(inputs, outputs, 1, stride), norm))

    def forward(self, x):
        branch = x
        for number in range(1, self.count + 1):
            branch = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(branch))
            branch = functional.relu(branch) if number < self.count else branch
        if self.projection and hasattr(self, self.projection):
            x = getattr(self, self.projection)(x)
        elif x.shape[1] != self.outputs:
            x = pad_channels(x, self.outputs, self.stride, (self.outputs - x.shape[1]) // 2)
        return functional.relu(x + branch)


class PublishedNet(nn.Module):
    """torchvision's ResNets (`fc`), or the CIFAR nets of akamaster (`linear`)."""

    def __init__(self, sizes, width: int, classifier: str, bottleneck=False, projection=""):
        super().__init__()
        imagenet = classifier == "fc"
        self.conv1 = conv(3, width, 7, 2) if imagenet else conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        self.layers, inputs = [], width
        for stage, size in enumerate(sizes):
            outputs = width * 2**stage * (4 if bottleneck else 1)
            units = []
            for unit in range(size):
                stride = 2 if stage > 0 and unit == 0 else 1
                units.append(PublishedUnit(inputs, outputs, stride, bottleneck, projection))
                inputs = outputs
            self.layers.append(f"layer{stage + 1}")
            setattr(self, self.layers[-1], nn.Sequential(*units))
        self.classifier = classifier
        setattr(self, classifier, nn.Linear(inputs, 10))

    def forward(self, x):
        x = self.pool(functional.relu(self.bn1(self.conv1(x))))
        for layer in self.layers:
            x = getattr(self, layer)(x)
        return getattr(self, self.classifier)(x.mean((2, 3)))


def torchvision(*sizes: int, bottleneck: bool) -> Callable[[], PublishedNet]:
    return lambda: PublishedNet(sizes, 64, "fc", bottleneck, projection="downsample")


def akamaster(units: int, projection: str = "") -> Callable[[], PublishedNet]:
    return lambda: PublishedNet([units] * 3, 16, "linear", projection=projection)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name", "size"),
    [
        (torchvision(2, 2, 2, 2, bottleneck=False), "resnet-18", 96),
        (torchvision(3, 4, 6, 3, bottleneck=True), "resnet-50", 64),
        pytest.param(
            *(torchvision(3, 4, 23, 3, bottleneck=True), "resnet-101", 64), marks=pytest.mark.weekly
        ),
        (akamaster(3), "resnet-20", 32),
        (akamaster(2, "shortcut"), "resnet-14", 16),
    ],
)
def test_published_net_converted_gives_the_same_logits_and_goes_back(make, name, size):
    twin, images = randomise(make()), random_images(2, size)
    with torch.no_grad():
        for part in twin.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # Statistics of this very batch, lest 100 layers explode.
                part.reset_running_stats()
        twin.train()(nchw(images))
        expected = twin.eval()(nchw(images)).numpy()
    tensors = {key: value.numpy() for key, value in twin.state_dict().items()}
    weights = pytorch_names.from_torch(tensors)
    assert weights.name == name
    model = zoo.create(weights.name, weights.num_classes, **weights.overrides)
    logits = jax.jit(model.apply)(weights.variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    layout = "torchvision" if hasattr(twin, "fc") else "akamaster"
    back = pytorch_names.to_torch(weights.variables, model.architecture, layout, num_batches=1)
    fresh = make()
    fresh.load_state_dict({key: torch.from_numpy(value) for key, value in back.items()})
    with torch.no_grad():
        np.testing.assert_array_equal(fresh.eval()(nchw(images)).numpy(), expected)


def test_exported_net_that_pads_at_the_end_computes_the_same_in_pytorch():
    model, images = zoo.create("resnet-14"), random_images(4, 16)
    variables = model.init(jax.random.key(0), images)
    # Different numbers for each channel, so that a wrong order shows.
    randomised = lambda v: torch.rand(v.shape).numpy() + 0.5 if v.ndim == 1 else v
    variables = jax.tree.map(randomised, variables)
    tensors = pytorch_names.to_torch(variables, model.architecture, "akamaster")
    twin = akamaster(2)()
    twin.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
    with torch.no_grad():
        expected = twin.eval()(nchw(images)).numpy()
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-3, atol=1e-4)


def real_test_images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test images of each class, uint8 [n, 32, 32, 3], and their labels."""
    folder = SHARED / "data" / "cifar10"
    if not folder.exists():
        pytest.skip(f"needs {folder}")
    images = []
    for mosaic in sorted(folder.glob("test-*.webp")):  # rows of 32×32 pictures, by class
        pixels = np.asarray(Image.open(mosaic).convert("RGB"))
        images.append(pixels[:32, : 32 * per_class].reshape(32, -1, 32, 3).swapaxes(0, 1))
    labels = np.repeat(np.arange(len(images)), [len(part) for part in images])
    return np.concatenate(images), labels


def test_published_resnet_20_gives_pytorchs_logits_on_real_images():
    file = SHARED / "data" / "pretrained" / "resnet20-12fca82f.th"
    if not file.exists():
        pytest.skip(f"needs {file}")
    pixels, labels = real_test_images(per_class=10)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = (pixels / np.float32(255) - mean) / std
    saved = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    twin = akamaster(3)()
    twin.load_state_dict({key.removeprefix("module."): value for key, value in saved.items()})
    with torch.no_grad():
        expected = twin.eval()(nchw(images)).numpy()
    weights = pytorch_names.from_torch(weight_files.read(file))
    model = zoo.create(weights.name, weights.num_classes, **weights.overrides)
    logits = np.asarray(jax.jit(model.apply)(weights.variables, images))
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert (logits.argmax(-1) != labels).mean() < 0.2
