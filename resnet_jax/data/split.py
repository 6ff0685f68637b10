"""What training and evaluation ask of a split, wherever its examples are."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

Inputs = Any
"""What goes to the devices for a batch: arrays [batch, …], of indices or of pixels and labels."""


class OnDevices(Protocol):
    """What of a split is on every device: a pytree that jitted functions take."""

    def augmented(
        self, inputs: Inputs, key: jax.Array, batch_size: int, own: Callable[[Any], Any]
    ) -> tuple[jax.Array, jax.Array]:
        """Images, float32 [batch, height, width, channels], and labels, to train on."""

    def plain(self, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """The same to test on."""


class Split(Protocol):
    """A split: `resident.Resident` or `streaming.Stream`."""

    on_devices: OnDevices
    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def inputs(self, seed: int, start: int, end: int, batch_size: int, after: Any) -> Inputs:
        """Of the steps from `start` up to `end`, [steps, batch, …]; `after` comes from the last."""

    def close(self) -> None:
        """Ends what makes the inputs; asked for more, it begins anew."""

    def evaluation_inputs(self, batch_size: int) -> Iterator[tuple[Inputs, Any]]:
        """Every example once, in batches; filling is false in the mask, bool [batch]."""
