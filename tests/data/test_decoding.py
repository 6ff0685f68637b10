"""A picture is decoded whole, to the pixels that other decoders see, or is refused."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from photographs import sample
from PIL import Image, ImageOps

from resnet_jax.data import image_ops

RNG = np.random.default_rng(0)
# Smooth, so that lossy formats come near; red differs from blue, height from width.
ROWS, COLUMNS = np.mgrid[:60, :90]
PIXELS = np.stack([4 * ROWS, COLUMNS, 255 - 2 * COLUMNS], -1).astype(np.uint8)


def encode(format: str, mode: str = "RGB", pixels: np.ndarray = PIXELS, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, format, **options)
    return stream.getvalue()


ENCODED = {
    "jpeg": encode("JPEG", quality=95),
    "progressive": encode("JPEG", quality=95, progressive=True),
    "grey": encode("JPEG", "L", quality=95),
    "cmyk": encode("JPEG", "CMYK", quality=95),
    "png": encode("PNG"),
    "palette": encode("PNG", "P"),
    "transparent": encode("PNG", "RGBA"),
    "webp": encode("WEBP", quality=95),
    "gif": encode("GIF"),
    "bmp": encode("BMP"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_every_kind_of_picture_becomes_rgb(kind: str):
    pixels = image_ops.decode(ENCODED[kind])
    wanted = np.asarray(Image.open(io.BytesIO(ENCODED[kind])).convert("RGB"))
    assert (pixels.shape, pixels.dtype) == ((60, 90, 3), np.uint8)
    np.testing.assert_allclose(pixels.astype(int), wanted, atol=3)
    if kind == "grey":
        assert (pixels == pixels[..., :1]).all()
    elif kind not in ("palette", "gif"):  # of few colours
        assert np.abs(pixels.astype(int) - PIXELS).mean() < 3


def test_photographs_decode_to_the_pixels_that_pillow_sees():
    for photograph in sample(20):
        wanted = np.asarray(Image.open(photograph).convert("RGB"))
        pixels = image_ops.decode(photograph.read_bytes()).astype(int)
        np.testing.assert_allclose(pixels, wanted, atol=2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((510, 600), (510, 600)), ((512, 600), (256, 300)), ((1030, 1024), (258, 256))],
)
def test_large_jpeg_is_decoded_at_the_smallest_size_that_suffices(size, expected):
    large = encode("JPEG", pixels=np.zeros((*size, 3), np.uint8))
    assert image_ops.decode(large, min_side=256).shape[:2] == expected
    assert image_ops.decode(large).shape[:2] == size


def test_scaled_jpeg_shows_the_same_picture():
    large = np.asarray(Image.fromarray(PIXELS).resize((900, 600), Image.Resampling.BILINEAR))
    half = image_ops.decode(encode("JPEG", pixels=large, quality=95), min_side=300)
    wanted = np.asarray(Image.fromarray(large).resize((450, 300), Image.Resampling.BOX))
    assert np.abs(half.astype(int) - wanted).mean() < 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_upright_image_is_that_of_viewers(format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(format, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(image_ops.decode(data, upright=True), wanted)


def test_damaged_orientation_leaves_the_image_as_it_is():
    data = encode("JPEG", exif=b"Exif\0\0MM\0*garbage")
    np.testing.assert_array_equal(image_ops.decode(data, upright=True), image_ops.decode(data))


@pytest.mark.parametrize("kind", ["jpeg", "grey", "cmyk", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_malformed_exif_turns_as_far_as_it_is_understood_and_breaks_nothing(kind: str, mode: str):
    """The resolution is words, in place of a fraction; Pillow cannot write that again."""
    orientation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    resolution = struct.pack(">HHI4s", 0x011A, 2, 1, b"a")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + orientation + resolution + bytes(4)
    picture = Image.open(io.BytesIO(ENCODED[kind]))
    stream = io.BytesIO()
    picture.save(stream, picture.format, exif=exif)
    stored = image_ops.decode(stream.getvalue(), mode)
    upright = image_ops.decode(stream.getvalue(), mode, upright=True)
    np.testing.assert_array_equal(upright, np.rot90(stored, -1))


def test_pillow_may_have_no_limit_of_pixels():
    unlimited = "from PIL import Image; Image.MAX_IMAGE_PIXELS = None"
    program = f"{unlimited}; from resnet_jax.data import image_ops; print(image_ops._MAX_PIXELS)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("inf", 0), done.stderr


def test_orientation_is_ignored_otherwise():
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    assert image_ops.decode(encode("JPEG", exif=exif)).shape == (60, 90, 3)


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_picture_that_breaks_off_is_whole_or_refused(kind: str, kept: float):
    data = ENCODED[kind]
    try:
        pixels = image_ops.decode(data[: int(kept * len(data))])
    except image_ops.UnreadableImage:
        return
    assert kind in ("png", "transparent")  # Some checksums end them; the pixels come before.
    np.testing.assert_array_equal(pixels, image_ops.decode(data))


@pytest.mark.parametrize("missing", [2, 3, 20, 100, 1000])
@pytest.mark.parametrize("min_side", [None, 128])
def test_photograph_that_lacks_its_end_is_refused(missing: int, min_side: int | None):
    for photograph in sample(10):
        with pytest.raises(image_ops.UnreadableImage, match=r"Premature end"):
            image_ops.decode(photograph.read_bytes()[:-missing], min_side=min_side)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, at: data[:at] + bytes(len(data) - at),  # a file that was never written out
        lambda data, at: data[:at] + data[at + 500 :],
        lambda data, at: data[:at] + RNG.bytes(2000) + data[at:],
    ],
)
def test_damaged_photograph_is_refused(damage):
    for photograph in sample(10):
        data = photograph.read_bytes()
        with pytest.raises(image_ops.UnreadableImage):
            image_ops.decode(damage(data, len(data) // 2))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"<html></html>"])
def test_what_is_no_picture_is_refused_in_words(data: bytes):
    with pytest.raises(image_ops.UnreadableImage, match=r"\w") as caught:
        image_ops.decode(data)
    assert "0x" not in str(caught.value)


HALF_CLEAR = np.dstack([PIXELS, np.where(COLUMNS < 45, 0, 255).astype(np.uint8)])


def with_clear_half(kind: str) -> bytes:
    """A picture, each way of saying so, whose left half is transparent over black."""
    black = HALF_CLEAR * (HALF_CLEAR[..., 3:] > 0)
    if kind == "palette":
        flat = Image.fromarray((COLUMNS >= 45).astype(np.uint8)).convert("P")
        flat.putpalette([0, 0, 0, 30, 60, 90])
        stream = io.BytesIO()
        flat.save(stream, "PNG", transparency=0)
        return stream.getvalue()
    if kind == "colour key":
        return encode("PNG", pixels=black[..., :3].copy(), transparency=(0, 0, 0))
    format, mode = kind.split()
    return encode(format, mode, black, lossless=True)


@pytest.mark.parametrize("kind", ["PNG RGBA", "PNG LA", "WEBP RGBA", "palette", "colour key"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("upright", [False, True])
def test_transparent_ground_is_white(kind: str, mode: str, upright: bool):
    pixels = image_ops.decode(with_clear_half(kind), mode, upright=upright)
    assert (pixels[:, :45] == 255).all()
    opaque = Image.open(io.BytesIO(with_clear_half(kind))).convert("RGB").convert(mode)
    np.testing.assert_array_equal(pixels[:, 45:], np.asarray(opaque).reshape(pixels.shape)[:, 45:])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_grey_that_is_transparent_is_white_of_any_number_of_bits(bits: int):
    """Pillow writes no PNG of 2 or 4 bits, so this one is written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        ending = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + ending

    greys = [0, 1, 2**bits - 1, 1] * 2
    row = int("".join(f"{grey:0{bits}b}" for grey in greys), 2).to_bytes(bits, "big")
    data = b"".join([
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(">H", 1)),
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ])  # fmt: skip
    assert image_ops.decode(data, "L").ravel().tolist() == [0, 255, 255, 255] * 2


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = np.full((4, 4, 4), (0, 100, 200, 51), np.uint8)  # a fifth
    mixed = image_ops.decode(encode("PNG", "RGBA", pixels))
    assert (mixed == (204, 224, 244)).all()


def test_transparency_is_kept_where_it_is_asked_for():
    data = encode("PNG", "RGBA", HALF_CLEAR)
    np.testing.assert_array_equal(image_ops.decode(data, "RGBA"), HALF_CLEAR)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_opaque_alpha_changes_no_bit(mode: str):
    opaque = encode("PNG", "RGBA")
    np.testing.assert_array_equal(
        image_ops.decode(opaque, mode), image_ops.decode(ENCODED["png"], mode)
    )


def png(depth: int, color_type: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 2×2 pixels of which both rows are `row`, also one that Pillow does not write."""
    header = struct.pack(">IIBBBBB", 2, 2, depth, color_type, 0, 0, 0)
    content = zlib.compress((b"\0" + row) * 2)  # \0: the row is not filtered
    whole = [(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in whole
    )


@pytest.mark.parametrize("keys", [(), ((b"tRNS", b"\xff\xff"),)])
def test_palette_that_is_missing_is_no_bug(keys: tuple):
    assert image_ops.decode(png(8, 3, b"\0\1", *keys)).shape == (2, 2, 3)


def test_texture_of_an_unknown_kind_is_refused():
    header = struct.pack("<7I44x2I", 124, 0, 2, 2, 0, 0, 0, 32, 1 << 14)
    data = b"DDS " + header.ljust(124, b"\0")
    with pytest.raises(image_ops.UnreadableImage, match="Unknown pixel format"):
        image_ops.decode(data)


def test_more_than_eight_bits_are_refused():
    deep = encode("PNG", "I;16", np.full((8, 8), 60_000, np.uint16))
    with pytest.raises(image_ops.UnreadableImage, match="more than 8 bits"):
        image_ops.decode(deep)


def test_absurd_size_is_refused_before_memory_is_taken():
    data = bytearray(ENCODED["jpeg"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"  # 65500 × 65500
    with pytest.raises(image_ops.UnreadableImage, match="65500×65500"):
        image_ops.decode(bytes(data))


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_sixteen_bits_a_channel_are_refused_in_every_colour(
    color_type: int, channels: int, mode: str
):
    row = struct.pack(">H", 3000) * 2 * channels
    with pytest.raises(image_ops.UnreadableImage, match="more than 8 bits"):
        image_ops.decode(png(16, color_type, row), mode)
