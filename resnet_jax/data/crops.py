"""Which part of a picture a network sees, and at which size: the papers' ways for large images.

Resizing a picture and cropping it is one step here: a crop is a box in the picture's own pixels,
and only what is seen is resampled. The pixels are those of resizing the whole picture (Pillow's
bilinear filter, antialiased) and cropping then, but for rounding. Random crops take their numbers
from the caller, `DRAWS` of them, uniform in [0, 1).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

DRAWS = 23

AREA = (0.08, 1.0)  # of the picture
ASPECT = (3 / 4, 4 / 3)  # width to height
_TRIES = 10


class Crop(NamedTuple):
    """A box in a picture, in its pixels, and whether it is mirrored left to right."""

    left: float
    top: float
    width: float
    height: float
    flip: bool = False


class Framing(NamedTuple):
    """How pictures become squares.

    Attributes:
      size: side of the squares in pixels (v1 §3.4: 224).
      scales: shortest and longest shorter side to which `scale` resizes (v1 §3.4: 256, 480).
      shorter_side: to which `centre` resizes (Krizhevsky et al. 2012: 256).
      flip: whether random crops are mirrored, every second one.
    """

    size: int = 224
    scales: tuple[int, int] = (256, 480)
    shorter_side: int = 256
    flip: bool = True


def scale(height: int, width: int, framing: Framing, draws: np.ndarray) -> Crop:
    """The shorter side is resized to a length drawn from `scales`, then cropped (v1 §3.4)."""
    low, high = framing.scales
    shorter = low + int(draws[0] * (high - low + 1))
    return _resized(height, width, shorter, framing, draws[1], draws[2], draws[-1] < 0.5)


def random_resized_crop(height: int, width: int, framing: Framing, draws: np.ndarray) -> Crop:
    """A box of 8% to 100% of the area and an aspect of 3/4 to 4/3 (Szegedy et al. 2015, §6).

    The area is uniform and so is the logarithm of the aspect, as in common use. When none of ten
    boxes fits, it is the centre, as much of it as the limits of the aspect allow.
    """
    flip = bool(framing.flip and draws[-1] < 0.5)
    low, high = np.log(ASPECT)
    for area, aspect in draws[: 2 * _TRIES].reshape(_TRIES, 2):
        pixels = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = math.exp(low + aspect * (high - low))
        box_width, box_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(draws[-3] * (width - box_width + 1))
            top = int(draws[-2] * (height - box_height + 1))
            return Crop(left, top, box_width, box_height, flip)
    box_width = max(1, min(width, round(height * ASPECT[1])))
    box_height = max(1, min(height, round(width / ASPECT[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return Crop(left, top, box_width, box_height, flip)


def centre(height: int, width: int, framing: Framing, draws: np.ndarray | None = None) -> Crop:
    """The centre after resizing the shorter side to `shorter_side`; nothing is random."""
    del draws
    return _resized(height, width, framing.shorter_side, framing, None, None, False)


AUGMENTATIONS: dict[str, Callable[[int, int, Framing, np.ndarray], Crop]] = {
    "scale": scale,
    "random_resized_crop": random_resized_crop,
    "centre": centre,
}
"""Names of a config's `streaming.augmentation`."""


def _resized(
    height: int,
    width: int,
    shorter: int,
    framing: Framing,
    across: float | None,
    down: float | None,
    flip: bool,
) -> Crop:
    """The box of a crop of whole pixels after resizing to whole pixels; None is the centre."""
    ratio = shorter / min(height, width)
    new_width, new_height = max(shorter, round(width * ratio)), max(shorter, round(height * ratio))

    def corner(slack: int, draw: float | None) -> int:
        return slack // 2 if draw is None else int(draw * (slack + 1))

    x, y = width / new_width, height / new_height
    left, top = corner(new_width - framing.size, across), corner(new_height - framing.size, down)
    side = framing.size
    return Crop(left * x, top * y, side * x, side * y, bool(framing.flip and flip))


def min_side(name: str, framing: Framing) -> int | None:
    """The shorter side that suffices to decode: no crop then enlarges what was made smaller."""
    if name == "random_resized_crop":
        return None  # An eighth of the area may fill the square.
    return framing.scales[1] if name == "scale" else framing.shorter_side


def render(picture: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop of a picture, uint8 [height, width, 3], as uint8 [size, size, 3]."""
    height, width, _ = picture.shape
    # The filter reaches as far around the box as one pixel of the result is large.
    across, down = (math.ceil(max(1, side / size)) + 1 for side in (crop.width, crop.height))
    first = max(0, math.floor(crop.left) - across), max(0, math.floor(crop.top) - down)
    last = (
        min(width, math.ceil(crop.left + crop.width) + across),
        min(height, math.ceil(crop.top + crop.height) + down),
    )
    left, top = crop.left - first[0], crop.top - first[1]
    # In single precision, as Pillow has it, a box may end a hair outside.
    box = (
        *(left, top),
        min(left + crop.width, last[0] - first[0]),
        min(top + crop.height, last[1] - first[1]),
    )
    part = Image.fromarray(picture[first[1] : last[1], first[0] : last[0]])
    pixels = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if crop.flip else pixels
