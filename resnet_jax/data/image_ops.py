"""Encoded pictures become pixels, whole or not at all.

Baseline and progressive JPEG goes through libjpeg-turbo, by way of simplejpeg, which measured
fastest of what is well kept (125 ImageNet photographs, CPU time a picture on one core: simplejpeg
1.3 ms, OpenCV 1.4 ms, Pillow 1.9 ms) and is the one that reports what libjpeg-turbo only warns of:
OpenCV hands out the grey rest of a file that breaks off as if it were a picture. What is not such
a JPEG (CMYK, PNG, WebP, GIF, BMP), whatever its name says, is Pillow's.

The EXIF orientation is ignored, as in the papers' and all common ImageNet pipelines: ImageNet's
labels, crops and published errors belong to the pixels as they are stored.
"""

import io
import struct

import numpy as np
import simplejpeg
from PIL import Image

_JPEG_START = b"\xff\xd8\xff"
_MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # where Pillow, too, takes a picture for an attack


class UnreadablePicture(ValueError):
    """Bytes that are no picture, or no longer a whole one; the message says what is wrong."""


def decode(data: bytes, *, min_side: int | None = None) -> np.ndarray:
    """A picture in RGB: uint8 [height, width, 3]. Grey becomes RGB, transparency is dropped.

    Args:
      data: a file's content, in any format that Pillow knows.
      min_side: pixels that suffice for the shorter side: a JPEG that is at least twice as large is
        decoded at the smallest size that leaves as many, by which the inverse DCT does less work;
        the size of other pictures is their own.

    Raises:
      UnreadablePicture: `data` is empty, of no known format, breaks off, is damaged so that its
        decoder notices (a JPEG has no checksum), or has more than 8 bits a channel.
    """
    if data.startswith(_JPEG_START):
        try:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > _MAX_PIXELS:
                raise UnreadablePicture(f"{width}×{height} pixels")
            smallest = min_side or max(height, width)
            pixels = simplejpeg.decode_jpeg(
                data,
                "CMYK" if colors in ("CMYK", "YCCK") else "RGB",
                min_height=smallest,
                min_width=smallest,
                min_factor=2,  # Sizes in between take longer than the whole picture.
            )
        except UnreadablePicture:
            raise
        except (ValueError, MemoryError) as error:
            raise UnreadablePicture(str(error) or "too large") from error
        if pixels.shape[-1] == 3:
            return pixels
        # A whole one of four inks, whose inversion, or not, by Adobe's marker Pillow knows.
    return np.asarray(decode_with_pillow(data, "RGB"))


def decode_with_pillow(data: bytes, mode: str) -> Image.Image:
    """A picture in Pillow's `mode`, such as "L" or "RGB"; raises `UnreadablePicture`."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            if picture.mode.startswith(("I", "F")):
                raise UnreadablePicture(f"more than 8 bits a channel (mode {picture.mode})")
            return picture.convert(mode)
    except UnreadablePicture:
        raise
    except Image.UnidentifiedImageError as error:  # Its text names a BytesIO.
        raise UnreadablePicture("no picture of a known format") from error
    # What Pillow's decoders raise on broken files of these formats.
    except (
        EOFError,
        OSError,
        SyntaxError,
        ValueError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadablePicture(str(error)) from error
