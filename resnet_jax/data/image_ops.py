"""Encoded images become pixels; which part of an image a network sees, and at which size.

Decoding: baseline and progressive JPEG goes through libjpeg-turbo, by way of simplejpeg, which
measured fastest of what is well kept (125 ImageNet images, CPU time an image on one core:
simplejpeg 1.3 ms, OpenCV 1.4 ms, Pillow 1.9 ms) and is the one that reports what libjpeg-turbo only
warns of: OpenCV hands out the grey rest of a file that breaks off as if it were an image. What is
not such a JPEG (CMYK, PNG, WebP, GIF, BMP), whatever its name says, is Pillow's.

Resizing is Pillow's bilinear filter, antialiased. Crops of large images are boxes in the image's
own pixels, of which only what is seen is resampled; the pixels are those of resizing the whole
image and cropping then, but for rounding.
"""

import io
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from resnet_jax.errors import InputError

# --- decoding

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_DEPTH = slice(24, 25)  # after width and height
# Where Pillow, too, takes an image for an attack; who has set None there wants no limit.
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
_ORIENTATION = 0x0112  # EXIF
_TO_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
}


class UnreadableImage(ValueError):
    """Bytes that are no image, or no longer a whole one; the message says what is wrong."""


class EncodedImage(NamedTuple):
    """One image as it is stored.

    Attributes:
      encoded: its file's content.
      label: its class, in [0, number of classes).
      name: its file's name or path where there is one, else the split and the position in it.
    """

    encoded: bytes
    label: int
    name: str

    def decode(
        self, channels: int = 3, *, min_side: int | None = None, upright: bool = False
    ) -> np.ndarray:
        """Its pixels, uint8 [height, width, channels]: 1 is grey, 4 has transparency; see `decode`.

        Raises `InputError`, naming the image, if it is broken.
        """
        try:
            mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            return decode(self.encoded, mode, min_side=min_side, upright=upright)
        except UnreadableImage as error:
            raise InputError(f"{self.name}: unreadable image ({error})") from error


def decode(
    data: bytes, mode: str = "RGB", *, min_side: int | None = None, upright: bool = False
) -> np.ndarray:
    """An image's pixels: uint8 [height, width, channels]. What is transparent shows white.

    Args:
      data: a file's content, in any format that Pillow knows.
      mode: Pillow's name of the colours: "RGB", "L" for grey or "RGBA", which keeps transparency.
      min_side: pixels that suffice for the shorter side: a JPEG that is at least twice as large is
        decoded at the smallest size that leaves as many, by which the inverse DCT does less work;
        the size of other images is their own.
      upright: whether the EXIF orientation is applied, as viewers do. ImageNet's labels, crops and
        published errors belong to the pixels as they are stored.

    Raises:
      UnreadableImage: `data` is empty, of no known format, breaks off, is damaged so that its
        decoder notices (a JPEG has no checksum), or has more than 8 bits a channel.
    """
    if data.startswith(_JPEG_START) and mode == "RGB":
        try:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > _MAX_PIXELS:
                raise UnreadableImage(f"{width}×{height} pixels")
            smallest = min_side or max(height, width)
            pixels = simplejpeg.decode_jpeg(
                data,
                "CMYK" if colors in ("CMYK", "YCCK") else "RGB",
                min_height=smallest,
                min_width=smallest,
                min_factor=2,  # Sizes in between take longer than the whole image.
            )
        except UnreadableImage:
            raise
        except (ValueError, MemoryError) as error:
            raise UnreadableImage(str(error) or "too large") from error
        if pixels.shape[-1] == 3:
            return _turned(pixels, data) if upright else pixels
        # A whole one of four inks, whose inversion, or not, by Adobe's marker Pillow knows.
    return _decode_with_pillow(data, mode, upright)


def _decode_with_pillow(data: bytes, mode: str, upright: bool) -> np.ndarray:
    if data.startswith(_PNG_START) and data[_PNG_DEPTH] == b"\x10":
        # Pillow keeps 16 bits of grey, and the upper 8 of colours.
        raise UnreadableImage("more than 8 bits a channel (a PNG of 16); save it with 8")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise UnreadableImage(f"more than 8 bits a channel (mode {image.mode})")
            found: Image.Image = image
            clear = image.info.get("transparency")
            if image.format == "PNG" and image.mode == "L" and isinstance(clear, int):
                # Pillow widens greys of 2 and 4 bits to 8, and not the one that is transparent.
                image.info["transparency"] = clear * 255 // (2 ** data[_PNG_DEPTH][0] - 1)
            if mode != "RGBA" and _has_alpha(found):
                found = _on_white(found)
            pixels = np.asarray(found if found.mode == mode else found.convert(mode))
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            return _turned(pixels, image) if upright else pixels
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:  # Its text names a BytesIO.
        raise UnreadableImage("no image of a known format") from error
    # What Pillow's decoders raise on broken files of these formats.
    except (
        EOFError,
        OSError,
        SyntaxError,
        ValueError,
        NotImplementedError,  # a DDS whose kind of pixels is unknown
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadableImage(str(error)) from error


def _has_alpha(image: Image.Image) -> bool:
    """Pillow's `has_transparency_data`, which fails for a PNG that lacks its palette."""
    alpha = image.mode.endswith(("A", "a")) or "transparency" in image.info
    return alpha or (image.palette is not None and image.palette.mode.endswith("A"))


def _on_white(image: Image.Image) -> Image.Image:
    """As viewers show it: what lies under transparent pixels is mostly black, and never meant."""
    layer = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(layer, mask=layer)
    return ground


def _turned(pixels: np.ndarray, of: bytes | Image.Image) -> np.ndarray:
    """Upright, as far as the image's EXIF says what can be understood.

    Not by Pillow's `exif_transpose`, which writes the EXIF anew, and fails on what was malformed.
    """
    try:
        image = Image.open(io.BytesIO(of)) if isinstance(of, bytes) else of
        turn = _TO_UPRIGHT.get(image.getexif().get(_ORIENTATION) or 0)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return pixels
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


# --- resizing and cropping

_STRIP = 10  # times as long as wide: resized whole, a line of pixels could take gigabytes


def resize(image: np.ndarray, shorter_side: int) -> np.ndarray:
    """Resizes an image, uint8 [height, width, channels], to so many pixels of its shorter side."""
    height, width, _ = image.shape
    new_height, new_width = _resized_shape(height, width, shorter_side)
    if (new_height, new_width) == (height, width):
        return image
    return _resample(image, new_height, new_width)


def centre_square(image: np.ndarray, size: int, shorter_side: int | None = None) -> np.ndarray:
    """The middle square, of `size` pixels, of an image whose shorter side is resized before.

    Args:
      image: uint8 [height, width, channels].
      size: pixels of the square.
      shorter_side: pixels; None is `size`.
    """
    height, width, _ = image.shape
    if max(height, width) > _STRIP * min(height, width):
        box = _crop_of_resized(height, width, shorter_side or size, size, None, flip=False)
        return render(image, box, size)
    image = resize(image, shorter_side or size)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _resized_shape(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    ratio = shorter_side / min(height, width)
    return max(shorter_side, round(height * ratio)), max(shorter_side, round(width * ratio))


def _resample(
    image: np.ndarray, height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    channels = image.shape[-1]
    # Pillow has no images of one channel in a third axis.
    whole = Image.fromarray(image if channels > 1 else image[..., 0])
    pixels = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return pixels.reshape(height, width, channels)


# --- crops of a stream

NUM_UNIFORMS = 23  # that a random crop takes

AREA = (0.08, 1.0)  # of the image
ASPECT = (3 / 4, 4 / 3)  # width to height
_TRIES = 10


class Crop(NamedTuple):
    """A box in an image, in its pixels, and whether it is mirrored left to right."""

    left: float
    top: float
    width: float
    height: float
    flip: bool = False


class CropConfig(NamedTuple):
    """How images become squares.

    Attributes:
      size: side of the squares in pixels (v1 §3.4: 224).
      scales: shortest and longest shorter side to which `scaled_crop` resizes (v1 §3.4: 256, 480).
      shorter_side: to which `centre_crop` resizes (Krizhevsky et al. 2012: 256).
      flip: whether random crops are mirrored, every second one.
    """

    size: int = 224
    scales: tuple[int, int] = (256, 480)
    shorter_side: int = 256
    flip: bool = True


def crop_uniforms(seed: int, position: int) -> np.ndarray:
    """Numbers in [0, 1) for the crop at a position of a stream: float64 [NUM_UNIFORMS]."""
    # Another counter than that of the epochs' orders, which have keys of the same kind. Raw bits,
    # because only they are the same in all versions of NumPy.
    bits = np.random.Philox(key=[seed, position], counter=[0, 0, 0, 1]).random_raw(NUM_UNIFORMS)
    return (bits >> np.uint64(11)) * 2.0**-53


def scaled_crop(height: int, width: int, config: CropConfig, uniforms: np.ndarray) -> Crop:
    """The shorter side is resized to a length drawn from `scales`, then cropped (v1 §3.4)."""
    low, high = config.scales
    shorter = low + int(uniforms[0] * (high - low + 1))
    flip = bool(config.flip and uniforms[-1] < 0.5)
    return _crop_of_resized(height, width, shorter, config.size, uniforms[1:3], flip)


def random_resized_crop(height: int, width: int, config: CropConfig, uniforms: np.ndarray) -> Crop:
    """A box of 8% to 100% of the area and an aspect of 3/4 to 4/3 (Szegedy et al. 2015, §6).

    The area is uniform and so is the logarithm of the aspect, as in common use. When none of ten
    boxes fits, it is the centre, as much of it as the limits of the aspect allow.
    """
    flip = bool(config.flip and uniforms[-1] < 0.5)
    low, high = np.log(ASPECT)
    for area, aspect in uniforms[: 2 * _TRIES].reshape(_TRIES, 2):
        pixels = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = math.exp(low + aspect * (high - low))
        box_width, box_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(uniforms[-3] * (width - box_width + 1))
            top = int(uniforms[-2] * (height - box_height + 1))
            return Crop(left, top, box_width, box_height, flip)
    box_width = max(1, min(width, round(height * ASPECT[1])))
    box_height = max(1, min(height, round(width / ASPECT[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return Crop(left, top, box_width, box_height, flip)


def centre_crop(
    height: int, width: int, config: CropConfig, uniforms: np.ndarray | None = None
) -> Crop:
    """The centre after resizing the shorter side to `shorter_side`; nothing is random."""
    del uniforms
    return _crop_of_resized(height, width, config.shorter_side, config.size, None, flip=False)


AUGMENTATIONS: dict[str, Callable[[int, int, CropConfig, Any], Crop]] = {
    "scale": scaled_crop,
    "random_resized_crop": random_resized_crop,
    "centre": centre_crop,
}
"""Names of a config's `streaming.augmentation`."""


def min_side(augmentation: str, config: CropConfig) -> int | None:
    """The shorter side that suffices to decode: no crop then enlarges what was made smaller."""
    if augmentation == "random_resized_crop":
        return None  # An eighth of the area may fill the square.
    return config.scales[1] if augmentation == "scale" else config.shorter_side


def render(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop of an image, uint8 [height, width, channels], as uint8 [size, size, channels]."""
    height, width, _ = image.shape
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
    pixels = _resample(image[first[1] : last[1], first[0] : last[0]], size, size, box)
    return pixels[:, ::-1] if crop.flip else pixels


def _crop_of_resized(
    height: int,
    width: int,
    shorter_side: int,
    size: int,
    corner: np.ndarray | None,
    flip: bool,
) -> Crop:
    """The box of a crop of whole pixels after resizing to whole pixels.

    `corner` is two numbers in [0, 1), across and down; None is the centre.
    """
    new_height, new_width = _resized_shape(height, width, shorter_side)
    slack_x, slack_y = new_width - size, new_height - size
    if corner is None:
        left, top = slack_x // 2, slack_y // 2
    else:
        left, top = int(corner[0] * (slack_x + 1)), int(corner[1] * (slack_y + 1))
    x, y = width / new_width, height / new_height
    return Crop(left * x, top * y, size * x, size * y, flip)


# --- the papers' test crops

TRAINED_AT = 224


class TestCrops(NamedTuple):
    """One of the papers' tests: how an image is resized and cut.

    Sizes are those of networks that see 224×224; for a network that sees S×S they are in
    proportion. Each size is resampled from the image's own; what a network says of the crops is
    then averaged (`resnet_jax.training.multi_crop`).

    Attributes:
      shorter_sides: pixels.
      crops: "centre", one square; "corners", those of the corners too; "whole", all that there is.
      size: pixels of the squares.
      flipped: also mirrored left to right.
    """

    shorter_sides: tuple[int, ...]
    crops: str
    size: int = TRAINED_AT
    flipped: bool = False


TEST_CROPS = {
    "centre": TestCrops((256,), "centre"),  # v1 Table 2 is 10-crop; this is what others quote
    "10-crop": TestCrops((256,), "corners", flipped=True),  # v1 §3.4, Krizhevsky 2012 §4.1
    "multi-scale": TestCrops((224, 256, 384, 480, 640), "whole", flipped=True),  # v1 §3.4
    "single-320": TestCrops((320,), "centre", 320),  # v2 §5 and Table 5
}


def cut(image: np.ndarray, test_crops: TestCrops, size: int) -> list[np.ndarray]:
    """The test crops of one image, uint8 [height, width, channels] each.

    Args:
      image: uint8 [height, width, channels].
      test_crops: which, a value of `TEST_CROPS`.
      size: pixels, each way, that the network was trained on.
    """
    found = []
    for side in test_crops.shorter_sides:
        resized = resize(image, _in_proportion(side, size))
        found += _cut(resized, test_crops.crops, _in_proportion(test_crops.size, size))
    if test_crops.flipped:
        found += [crop[:, ::-1] for crop in found]
    return found


def _in_proportion(pixels: int, size: int) -> int:
    return round(pixels * size / TRAINED_AT)


def _cut(image: np.ndarray, crops: str, size: int) -> list[np.ndarray]:
    if crops == "whole":
        return [image]
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [(bottom // 2, right // 2)]
    if crops == "corners":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [image[top : top + size, left : left + size] for top, left in corners]
