"""Sums and means over examples, a few at a time, so that memory does not grow with their number."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

AT_ONCE = 250  # examples


def batches(*arrays: np.ndarray, at_once: int = AT_ONCE) -> Iterator[tuple[np.ndarray, ...]]:
    """Parts of nearly equal size, of at most `at_once` examples: no more than two sizes."""
    parts = math.ceil(len(arrays[0]) / at_once)
    yield from zip(*(np.array_split(array, parts) for array in arrays), strict=True)


def mean_over(
    function: Callable[..., Any], *arrays: np.ndarray, at_once: int = AT_ONCE
) -> np.ndarray:
    """The mean over all examples of `function(*part)`, itself a mean over the part's examples."""
    total: Any = 0.0
    for part in batches(*arrays, at_once=at_once):
        value = jax.tree.map(np.asarray, jax.device_get(function(*part)))
        total = total + len(part[0]) * np.asarray(value, np.float64)
    return total / len(arrays[0])
