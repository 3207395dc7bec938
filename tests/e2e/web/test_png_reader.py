"""png_reader.js against PNGs of every depth, filter and supported color type; Pillow checks the PNGs themselves."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.types import UInt8Array

GREY, INDEXED, RGB = 0, 3, 2


def read_in_browser(page: Any, png: bytes) -> UInt8Array:
    image = page.evaluate(
        """async (bytes) => {
            const { readPng } = await import("/page/png_reader.js");
            const { width, height, values } = await readPng(new Uint8Array(bytes));
            return { width, height, values: [...values] };
        }""",
        list(png),
    )
    return np.array(image["values"], np.uint8).reshape(image["height"], image["width"])


@pytest.mark.parametrize(("classes", "depth"), [(2, 1), (4, 2), (16, 4), (200, 8)])
def test_class_ids_of_every_depth_and_filter(page: Any, classes: int, depth: int) -> None:
    ids = np.random.default_rng(classes).integers(0, classes, (37, 53), dtype=np.uint8)
    ids[:, 20:40] = classes - 1
    np.testing.assert_array_equal(read_in_browser(page, png_with_every_filter(ids, depth, INDEXED)), ids)


def test_grey_values(page: Any) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    np.testing.assert_array_equal(read_in_browser(page, png_with_every_filter(grey, 8, GREY)), grey)


def test_a_png_in_rgb_is_rejected(page: Any) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    with pytest.raises(Exception, match="color type 2 with 8 bits; expected grey or indexed"):
        read_in_browser(page, out.getvalue())


def png_with_every_filter(values: UInt8Array, depth: int, color_type: int) -> bytes:
    """A PNG whose rows use the five filters in turn."""
    bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(len(values), -1)
    rows = np.packbits(bits, axis=1).astype(np.int64)
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    left, upper_left = (np.pad(each, ((0, 0), (1, 0)))[:, :-1] for each in (rows, up))
    distances = np.abs(np.stack([up - upper_left, left - upper_left, left + up - 2 * upper_left]))
    paeth = np.choose(distances.argmin(axis=0), [left, up, upper_left])
    predictions = [np.zeros_like(rows), left, up, (left + up) // 2, paeth]
    raw = b"".join(
        bytes([y % 5]) + (row - predictions[y % 5][y]).astype(np.uint8).tobytes() for y, row in enumerate(rows)
    )
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, color_type, 0, 0, 0)
    palette = [(b"PLTE", bytes(3 * 2**depth))] if color_type == INDEXED else []
    chunks = [(b"IHDR", header), *palette, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), values)
    return png
