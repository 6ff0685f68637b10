"""Predicts how well data parallelism scales: the table of docs/devices_and_hosts.md.

    python -m benchmarks.scaling_model

The bytes that devices reduce in a step are read from the step as compiled for eight (CPU) devices.
The speed of devices and links is assumed: see `MACHINES`.
"""

import functools
import math
from typing import NamedTuple

import jax

from configs import cifar10
from resnet_jax.models import counting, zoo
from resnet_jax.runs import Recipe
from resnet_jax.runtime import parallel
from resnet_jax.training import trainer


class Machine(NamedTuple):
    """Assumed, not measured.

    Attributes:
      flops: floating-point operations a second that a device sustains in training.
      bandwidth: bytes a second that a device sends (and receives) in an all-reduce.
      latency: seconds of one hop.
    """

    flops: float
    bandwidth: float
    latency: float


MACHINES = {
    "H100, 400 Gb/s a GPU": Machine(flops=0.1 * 989e12, bandwidth=50e9, latency=5e-6),
    "H100, 25 Gb/s a GPU": Machine(flops=0.1 * 989e12, bandwidth=3.1e9, latency=20e-6),
    "TPU v5e, its own links": Machine(flops=0.2 * 197e12, bandwidth=45e9, latency=2e-6),
}
WORK = (
    ("resnet-50", (224, 224, 3), 1000, 32),
    ("resnet-50", (224, 224, 3), 1000, 128),
    ("resnet-110", (32, 32, 3), 10, 64),
)
"""Network, images, classes, and examples a device."""

DEVICES = (8, 64, 512, 4096)

BACKWARD = 2 / 3  # of the operations of a step


@functools.cache
def bytes_reduced(name: str, num_classes: int) -> dict[str, int]:
    """What a device sends in a step, by kind, from the program for eight devices."""
    recipe = Recipe.from_config(cifar10.get_config(f"{name},batch_size=8,model.bn_group_size=1"))
    # Neither parameters nor statistics depend on the images' size.
    experiment = trainer.with_random_data(recipe, (32, 32, 3), num_classes, num_examples=8)
    template, data = experiment.state_template(), experiment.splits["train"]
    program = experiment.make_run_steps().lower(template, data, 0, 1).compile()
    return parallel.bytes_sent(program.as_text())


def efficiency(compute: float, reduced: int, devices: int, machine: Machine) -> tuple[float, float]:
    """Part of a step's time in which devices compute: without overlap, and with all there can be.

    A ring moves 2 (n − 1) / n of the bytes through each link, at best during the backward pass.
    Latency is that of a tree, which libraries use where messages are small.
    """
    ring = 2 * (devices - 1) / devices * reduced / machine.bandwidth
    latency = 2 * math.log2(devices) * machine.latency
    hidden = max(0.0, ring - BACKWARD * compute)
    return compute / (compute + ring + latency), compute / (compute + hidden + latency)


def main() -> None:
    """Prints the table as Markdown."""
    jax.config.update("jax_platforms", "cpu")  # whatever else there is
    jax.config.update("jax_num_cpu_devices", 8)
    header = ["network", "machine", "reduced", "compute", *map(str, DEVICES)]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name, shape, num_classes, examples in WORK:
        sent = bytes_reduced(name, num_classes)
        assert set(sent) == {"all-reduce"}, sent
        count = counting.count(zoo.create(name, num_classes), shape)
        for title, machine in MACHINES.items():
            # A multiply-add is two operations; the backward pass costs two forward passes.
            compute = 6 * count.multiply_adds * examples / machine.flops
            bounds = [efficiency(compute, sent["all-reduce"], n, machine) for n in DEVICES]
            figures = [f"{100 * low:.0f}–{100 * high:.0f}%" for low, high in bounds]
            megabytes, milliseconds = sent["all-reduce"] / 1e6, compute * 1e3
            print(
                f"| {name}, {examples} a device | {title} | {megabytes:.2f} MB "
                f"| {milliseconds:.2f} ms | {' | '.join(figures)} |"
            )


if __name__ == "__main__":
    main()
