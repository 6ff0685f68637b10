"""The CIFAR nets of v1 §4.2 as plain numbers, for peers that do not use this project's models."""

import re


def cifar_units(name: str) -> tuple[bool, list[tuple[int, int]]]:
    """Whether "plain-N" or "resnet-N" has shortcuts, and (channels, stride) of each unit."""
    family, depth = re.fullmatch(r"(plain|resnet)-(\d+)", name).groups()
    units = (int(depth) - 2) // 6
    stages = [(16, 1), (32, 2), (64, 2)]
    return family == "resnet", [
        (channels, stride if number == 0 else 1)
        for channels, stride in stages
        for number in range(units)
    ]
