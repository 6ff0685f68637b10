"""The same training step in PyTorch, at the settings that its users reach for.

    python -m benchmarks.baselines.pytorch --net=resnet-20 --batch_size=128 --setting=channels_last

Images stay on the device as `uint8` and are cropped and flipped there for the whole batch at once,
which no usual data loader does: what is timed is the step alone. Metrics stay on the device.
"""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.baselines import PYTORCH_SETTINGS, serve
from benchmarks.baselines.networks import Layout, layout


class Layer(nn.Sequential):
    """A convolution and its batch norm."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A branch of two or three layers and, with shortcuts, option A or B (v1 Figures 2, 5)."""

    def __init__(self, net: Layout, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual, self.stride, self.new = net.residual, stride, outputs - inputs
        if net.bottleneck:
            narrow = outputs // 4
            layers = [(inputs, narrow, 1, stride), (narrow, narrow, 3), (narrow, outputs, 1)]
        else:
            layers = [(inputs, outputs, 3, stride), (outputs, outputs, 3)]
        self.branch = nn.ModuleList(Layer(*layer) for layer in layers)
        project = net.projects and net.residual and (self.new or stride > 1)
        self.projection = Layer(inputs, outputs, 1, stride) if project else None

    def forward(self, x):
        *first, last = self.branch
        y = x
        for layer in first:
            y = functional.relu(layer(y), inplace=True)
        y = last(y)
        if self.residual:
            y = y + self.shortcut(x)
        return functional.relu(y, inplace=True)

    def shortcut(self, x):
        if self.projection is not None:
            return self.projection(x)
        if self.new:
            return functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.new,))
        return x


class Net(nn.Module):
    def __init__(self, name: str, num_classes: int):
        super().__init__()
        net = layout(name)
        width = 64 if net.imagenet else 16
        self.stem = Layer(3, width, 7, 2) if net.imagenet else Layer(3, width, 3)
        self.pool = nn.MaxPool2d(3, 2, 1) if net.imagenet else nn.Identity()
        blocks = []
        for channels, stride in net.blocks:
            blocks.append(Block(net, width, channels, stride))
            width = channels
        self.blocks, self.classifier = nn.Sequential(*blocks), nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.pool(functional.relu(self.stem(x), inplace=True))
        return self.classifier(self.blocks(x).mean((2, 3)))


def _batch(images, labels, batch_size, padding):
    """A random batch, padded, cropped and flipped: float32 [batch, 3, height, width]."""
    device, size = images.device, images.shape[1]
    chosen = torch.randint(len(images), (batch_size,), device=device)
    padded = functional.pad(images[chosen], (0, 0, padding, padding, padding, padding))
    corner = torch.randint(2 * padding + 1, (2, batch_size, 1), device=device)
    positions = torch.arange(size, device=device)
    flip = torch.rand((batch_size, 1), device=device) < 0.5
    rows = corner[0] + positions
    columns = corner[1] + torch.where(flip, positions.flip(0), positions)
    numbers = torch.arange(batch_size, device=device)[:, None, None]
    cropped = padded[numbers, rows[:, :, None], columns[:, None]]
    # The pixels lie as channels-last already.
    return cropped.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5, labels[chosen]


def main() -> None:
    """Trains when it is told to."""
    asked = serve.arguments(PYTORCH_SETTINGS)
    serve.serve(lambda: _trainer(asked))


def _trainer(asked):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    memory_format = torch.contiguous_format if asked.setting == "eager" else torch.channels_last
    net = Net(asked.net, asked.num_classes).to(device, memory_format=memory_format)
    kernels = [weight for weight in net.parameters() if weight.ndim > 1]
    others = [weight for weight in net.parameters() if weight.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 1e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    shape = (asked.num_examples, asked.image_size, asked.image_size, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(asked.num_classes, (asked.num_examples,), device=device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled="amp" in asked.setting)

    def loss_of(inputs, targets):
        with mixed:
            logits = net(inputs)
        error = (logits.argmax(1) != targets).float().mean()
        return functional.cross_entropy(logits.float(), targets), error

    if "compile" in asked.setting:
        loss_of = torch.compile(loss_of, mode="reduce-overhead" if device.type == "cuda" else None)
    totals = torch.zeros(2, device=device)
    padding = 0 if layout(asked.net).imagenet else 4

    def train(num_steps: int) -> int:
        for _ in range(num_steps):
            inputs, targets = _batch(images, labels, asked.batch_size, padding)
            loss, error = loss_of(inputs.contiguous(memory_format=memory_format), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            totals.add_(torch.stack([loss.detach(), error]))
        if device.type == "cuda":
            torch.cuda.synchronize()
        totals.tolist()
        return num_steps

    return train


if __name__ == "__main__":
    main()
