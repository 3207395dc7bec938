"""Label Studio's run-length encoding of brush masks. It is not COCO's.

A header: 32 bits for the number of values, 5 for their size - 1, four times 4 for the sizes of run lengths - 1. Then,
for each run: a bit 1, two bits that choose the size of the length, the length - 1, and the value. The values are those
of an RGBA image, row by row; all four channels of a pixel are 255 inside the mask.
Source: https://github.com/thi-ng/umbrella/blob/develop/packages/rle-pack/src/index.ts
"""

from typing import Final

import numpy as np
import numpy.typing as npt

_LENGTH_BITS: Final = np.array([3, 4, 8, 16], dtype=np.uint32)
_LONGEST: Final = 1 << 16
_VALUE_BITS: Final = 8
_CHANNELS: Final = 4


def encode(mask: npt.NDArray[np.bool_]) -> bytes:
    """The bytes of a mask, (H, W) bool; Label Studio's JSON has them as a list of numbers."""
    flat = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    lengths, values = _split(lengths, flat[starts] * np.uint32(255))
    sizes = np.searchsorted(1 << _LENGTH_BITS.astype(np.int64), lengths)
    length_bits = _LENGTH_BITS[sizes]
    codes = np.uint32(0b100) | sizes.astype(np.uint32)
    codes = (((codes << length_bits) | (lengths - 1).astype(np.uint32)) << np.uint32(_VALUE_BITS)) | values
    return _pack(
        np.concatenate((np.array([flat.size * _CHANNELS, _header()], dtype=np.uint32), codes)),
        np.concatenate((np.array([32, 5 + 4 * 4], dtype=np.uint32), 3 + length_bits + np.uint32(_VALUE_BITS))),
    )


def _header() -> int:
    header = _VALUE_BITS - 1
    for bits in _LENGTH_BITS.tolist():
        header = header << 4 | (bits - 1)
    return header


def _split(
    lengths: npt.NDArray[np.int64], values: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Runs longer than the longest that can be written become several."""
    parts = (lengths + _LONGEST - 1) // _LONGEST
    split = np.full(int(parts.sum()), _LONGEST, dtype=np.int64)
    last = np.cumsum(parts) - 1
    split[last] = lengths - (parts - 1) * _LONGEST
    return split, np.repeat(values, parts)


def _pack(codes: npt.NDArray[np.uint32], bits: npt.NDArray[np.uint32]) -> bytes:
    """The lowest `bits` bits of each code, one after the other, the highest first."""
    aligned = (codes << (np.uint32(32) - bits)).astype(">u4")
    unpacked = np.unpackbits(aligned.view(np.uint8)).reshape(-1, 32)
    return np.packbits(unpacked[np.arange(32) < bits[:, None]]).tobytes()
