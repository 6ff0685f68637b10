"""A baseline in a process of its own, which trains only when it is told to.

It answers in lines: `ready SECONDS` when it has compiled, and then, to each line with a
number of steps, how many it has made, which may be some more, and how many seconds they took. No
line ends it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.baselines.networks import layout


def arguments(settings: Sequence[str]) -> argparse.Namespace:
    """What to train: `net`, `batch_size`, `image_size`, `num_classes`, and a `setting`.

    What is not given is that of the network's data set.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--num_classes", type=int)
    parser.add_argument("--num_examples", type=int)
    parser.add_argument("--setting", choices=settings, default=settings[0])
    asked = parser.parse_args()
    imagenet = layout(asked.net).imagenet
    asked.image_size = asked.image_size or (224 if imagenet else 32)
    asked.num_classes = asked.num_classes or (1000 if imagenet else 10)
    # Of ImageNet's size as many as fit; the step does the same with few.
    asked.num_examples = asked.num_examples or (4096 if imagenet else 50_000)
    return asked


def serve(make: Callable[[], Callable[[int], int]]) -> None:
    """Answers each line; `make()` gives `train(num_steps)`, which returns the steps it has made."""
    began = time.perf_counter()
    train = make()
    train(1)
    # A second call, because what the first one gives may be laid out otherwise than its input.
    train(1)
    print("ready", time.perf_counter() - began, flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        made = train(int(line))
        print(made, time.perf_counter() - began, flush=True)
