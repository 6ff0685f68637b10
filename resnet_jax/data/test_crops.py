"""The papers' tests of a net on photographs, by name: how a picture is scaled and cut.

Sizes are those of nets that see 224×224; for a net that sees S×S they are in proportion. A picture
is scaled from its own size at once, bilinear and antialiased, so that its shorter side has the
size given; the crops are then averaged, see `resnet_jax.training.multi_crop`.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

TRAINED_AT = 224


class View(NamedTuple):
    """One of the tests.

    Attributes:
      sides: pixels of the shorter side.
      crops: "centre", one square; "corners", those of the corners too; "whole", all that there is.
      crop_size: pixels of the squares.
      flipped: also mirrored left to right.
    """

    sides: tuple[int, ...]
    crops: str
    crop_size: int = TRAINED_AT
    flipped: bool = False


VIEWS = {
    "centre": View((256,), "centre"),  # v1 Table 2 is 10-crop; this is what others quote
    "10-crop": View((256,), "corners", flipped=True),  # v1 §3.4, after Krizhevsky 2012 §4.1
    "multi-scale": View((224, 256, 384, 480, 640), "whole", flipped=True),  # v1 §3.4
    "single-320": View((320,), "centre", 320),  # v2 §5 and Table 5
}


def cut(picture: np.ndarray, view: View, size: int) -> list[np.ndarray]:
    """The crops of one picture, uint8 [height, width, channels] each.

    Args:
      picture: uint8 [height, width, channels].
      view: which.
      size: pixels, each way, that the net was trained on.
    """
    crops = []
    for side in view.sides:
        scaled = scale(picture, _in_proportion(side, size))
        crops += _crops(scaled, view.crops, _in_proportion(view.crop_size, size))
    if view.flipped:
        crops += [crop[:, ::-1] for crop in crops]
    return crops


def scale(picture: np.ndarray, side: int) -> np.ndarray:
    """Resizes a picture so that its shorter side is `side` pixels: bilinear, antialiased."""
    height, width, channels = picture.shape
    factor = side / min(height, width)
    to = (max(side, round(width * factor)), max(side, round(height * factor)))
    if to == (width, height):
        return picture
    image = Image.fromarray(picture if channels == 3 else picture[..., 0])
    return np.asarray(image.resize(to, Image.Resampling.BILINEAR)).reshape(to[1], to[0], channels)


def centre_of(picture: np.ndarray, side: int, size: int) -> np.ndarray:
    """The middle square, of `size` pixels, of a picture whose shorter side is `side`."""
    return _crops(scale(picture, side), "centre", size)[0]


def _in_proportion(pixels: int, size: int) -> int:
    return round(pixels * size / TRAINED_AT)


def _crops(picture: np.ndarray, kind: str, size: int) -> list[np.ndarray]:
    if kind == "whole":
        return [picture]
    bottom, right = picture.shape[0] - size, picture.shape[1] - size
    corners = [(bottom // 2, right // 2)]
    if kind == "corners":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [picture[top : top + size, left : left + size] for top, left in corners]
