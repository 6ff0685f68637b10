"""The same training step in PyTorch, at the settings that its users reach for.

    python -m benchmarks.peers.pytorch --net=resnet-20 --batch_size=128 --setting=channels_last

Images stay on the device as `uint8` and are cropped and flipped there for the whole batch at once,
which no usual data loader does: what is timed is the step alone. Metrics stay on the device.
"""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import PYTORCH_SETTINGS, turns
from benchmarks.peers.nets import cifar_units

PADDING = 4


class Unit(nn.Module):
    """Two 3×3 convolutions and option A (v1 Figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, residual: bool):
        super().__init__()
        self.stride, self.new, self.residual = stride, outputs - inputs, residual
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.residual:
            if self.new:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.new,))
            y = y + x
        return functional.relu(y, inplace=True)


class CifarNet(nn.Module):
    def __init__(self, name: str, num_classes: int):
        super().__init__()
        residual, shapes = cifar_units(name)
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        units, inputs = [], 16
        for channels, stride in shapes:
            units.append(Unit(inputs, channels, stride, residual))
            inputs = channels
        self.units, self.classifier = nn.Sequential(*units), nn.Linear(64, num_classes)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        return self.classifier(self.units(x).mean((2, 3)))


def _batch(images, labels, batch_size):
    """A random batch, padded, cropped and flipped: float32 [batch, 3, height, width]."""
    device, size = images.device, images.shape[1]
    chosen = torch.randint(len(images), (batch_size,), device=device)
    padded = functional.pad(images[chosen], (0, 0, PADDING, PADDING, PADDING, PADDING))
    corner = torch.randint(2 * PADDING + 1, (2, batch_size, 1), device=device)
    positions = torch.arange(size, device=device)
    flip = torch.rand((batch_size, 1), device=device) < 0.5
    rows = corner[0] + positions
    columns = corner[1] + torch.where(flip, positions.flip(0), positions)
    numbers = torch.arange(batch_size, device=device)[:, None, None]
    cropped = padded[numbers, rows[:, :, None], columns[:, None]]
    # The pixels lie as channels-last already.
    return cropped.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5, labels[chosen]


def main() -> None:
    """Serves turns of training."""
    asked = turns.arguments(PYTORCH_SETTINGS)
    turns.serve(lambda: _trainer(asked))


def _trainer(asked):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    layout = torch.contiguous_format if asked.setting == "eager" else torch.channels_last
    net = CifarNet(asked.net, asked.num_classes).to(device, memory_format=layout)
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

    def train(num_steps: int) -> int:
        for _ in range(num_steps):
            inputs, targets = _batch(images, labels, asked.batch_size)
            loss, error = loss_of(inputs.contiguous(memory_format=layout), targets)
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
