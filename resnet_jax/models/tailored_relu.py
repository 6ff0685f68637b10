"""The slope of a Tailored ReLU (Zhang, Botev & Martens 2022, arXiv 2203.08120, "TAT").

It is a leaky ReLU, φ(x) = √(2 / (1 + α²)) · max(x, α x), whose slope α depends on the depth. The
C-map of a layer takes the correlation of two inputs to that of their outputs, in wide networks of
random weights; that of a ReLU network tends to 1 everywhere with depth: it makes all inputs alike.
TAT chooses the α with which uncorrelated inputs leave the whole network with a correlation of η.

Loads no JAX: an architecture checks itself with it.
"""

import math

from resnet_jax.errors import InputError

ETA = 0.9
"""The paper's η for networks without shortcuts."""

_HALVINGS = 60  # of the interval of slopes: more than a float can tell apart


def output_scale(slope: float) -> float:
    """√(2 / (1 + α²)), with which φ keeps the mean square of Gaussian inputs."""
    return math.sqrt(2 / (1 + slope**2))


def c_map(c: float, slope: float, layers: int = 1) -> float:
    """The correlation after so many layers of inputs of correlation c.

    A layer's is c + (1 − α)² / (π (1 + α²)) · (√(1 − c²) − c · arccos c).
    """
    weight = (1 - slope) ** 2 / (math.pi * (1 + slope**2))
    for _ in range(layers):
        c = min(c + weight * (math.sqrt(1 - c * c) - c * math.acos(c)), 1.0)
    return c


def negative_slope(layers: int, eta: float = ETA) -> float:
    """The slope α in [0, 1) at which a chain of so many layers takes correlation 0 to η.

    Raises:
      InputError: not even ReLU (α = 0) makes it so alike in so few layers.
    """
    most = c_map(0.0, 0.0, layers)
    if not 0 < eta <= most:
        raise InputError(
            f"tat_eta={eta}: must be above 0 and at most {most:.3f}, which {layers} layers of ReLU "
            "reach"
        )
    low, high = 0.0, 1.0  # The more linear, the less alike.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if c_map(0.0, middle, layers) > eta else (low, middle)
    return low
