"""PNG writer for masks and class maps: two to ten times as fast as a general library.

Each row is filtered by Up: the rows of a map resemble each other, so mostly zeros remain, which run-length matching
(zlib's Z_RLE) at level 1 compresses. Source: PNG, third edition, https://www.w3.org/TR/png-3/
"""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng as zlib

from service.types import UInt8Array

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED, _RGBA = 0, 3, 6  # color types
_UP: Final = 2  # filter type
_LEVEL: Final = 1


def grey_png(values: UInt8Array) -> bytes:
    """8-bit grey PNG of (H, W) uint8."""
    return _png(values, values.shape[1], 8, _GREY)


def mask_png(mask: npt.NDArray[np.bool_]) -> bytes:
    """1-bit grey PNG of (H, W) bool: white where it is true."""
    return _png(np.packbits(mask, axis=1), mask.shape[1], 1, _GREY)


def rgba_png(mask: npt.NDArray[np.bool_], color: UInt8Array) -> bytes:
    """RGBA PNG of (H, W) bool: `color`, (4,) uint8, where it is true, transparent black elsewhere."""
    pixels = mask * color.view(np.uint32)  # one number per pixel: four times as fast as four bytes
    return _png(pixels.view(np.uint8), mask.shape[1], 8, _RGBA)


def indexed_png(ids: UInt8Array, palette: UInt8Array, transparent: int | None, text: tuple[str, str] | None) -> bytes:
    """8-bit indexed PNG of (H, W) uint8.

    palette: (N, 3) uint8 RGB. transparent: the index that is transparent. text: keyword (ASCII) and value.
    """
    chunks = [_chunk(b"PLTE", palette.tobytes())]
    if transparent is not None:
        chunks.append(_chunk(b"tRNS", b"\xff" * transparent + b"\0"))
    if text is not None:
        keyword, value = text
        chunks.append(
            _chunk(b"iTXt", keyword.encode("ascii") + b"\0" * 5 + value.encode())
        )  # not compressed, no language
    return _png(ids, ids.shape[1], 8, _INDEXED, *chunks)


def _png(rows: UInt8Array, width: int, bits: int, color_type: int, *chunks: bytes) -> bytes:
    """rows: (H, bytes of a row). chunks: written between the header and the pixels."""
    height = len(rows)
    filtered = np.empty((height, rows.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]  # the row above the first is all 0
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    compressor = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = compressor.compress(filtered.data) + compressor.flush()
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", body), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
