"""PNGs of masks and maps, written here: twice to ten times as fast as by a library that has every picture in mind.

A row's filter is Up: a map's rows resemble each other, so what is left is zeros, and run-length matching alone (zlib's
Z_RLE) at level 1 finds them. Source: PNG, third edition, https://www.w3.org/TR/png-3/
"""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng as zlib

from service.types import UInt8Array

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED, _RGBA = 0, 3, 6  # colour types
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
    pixels = mask * color.view(np.uint32)  # one number a pixel: four times as fast as four bytes
    return _png(pixels.view(np.uint8), mask.shape[1], 8, _RGBA)


def indexed_png(ids: UInt8Array, palette: UInt8Array, transparent: int | None, text: tuple[str, str] | None) -> bytes:
    """8-bit indexed PNG of (H, W) uint8.

    palette: (N, 3) uint8 RGB. transparent: the index that is. text: a keyword (ASCII), and what it stands for.
    """
    told = [_chunk(b"PLTE", palette.tobytes())]
    if transparent is not None:
        told.append(_chunk(b"tRNS", b"\xff" * transparent + b"\0"))
    if text is not None:
        keyword, value = text
        told.append(_chunk(b"iTXt", keyword.encode("ascii") + b"\0" * 5 + value.encode()))  # neither packed nor foreign
    return _png(ids, ids.shape[1], 8, _INDEXED, *told)


def _png(rows: UInt8Array, width: int, bits: int, colour_type: int, *told: bytes) -> bytes:
    """rows: (H, bytes of a row). told: chunks between the header and the pixels."""
    height = len(rows)
    filtered = np.empty((height, rows.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]  # what is above the first row counts as 0
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = packer.compress(filtered.data) + packer.flush()
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), *told, _chunk(b"IDAT", body), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
