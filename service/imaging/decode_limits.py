"""Limits on an encoded image that hold before much time or memory is spent on it.

Pillow reads a file's segments, chunks, tags, strips and runs one by one in Python, holding the GIL: 32 MB of empty ones
take 10 to 20 seconds. Photographs need 3 to 200 reads, a 32 MB PNG in chunks of 8 kB, as libpng writes them, 12,000.
"""

import io
from typing import Final

from service.errors import CorruptImage, ImageTooLarge

MAX_READS: Final = 20_000
MAX_SCANS: Final = 100  # cameras and libjpeg write 10 to 12
# What Pillow reads at once but goes through piece by piece in Python counts by its bytes.
# JPEG: tables, frame headers, Photoshop resources; and Exif, whose earlier segments it copies for each further one:
# 9,000 of them in 32 MB took it 200 seconds. TIFF: the tags with the offsets of strips and tiles, 273 and 324.
_JPEG_PARSED: Final = frozenset({b"\xff\xdb", b"\xff\xed", *(bytes([0xFF, low]) for low in range(0xC0, 0xD0))})
_EXIF: Final = b"Exif\0\0"
_JPEG_BYTES_PER_READ: Final = 100
_TIFF_OFFSETS: Final = frozenset(tag.to_bytes(2, order) for tag in (273, 324) for order in ("little", "big"))
_TIFF_BYTES_PER_READ: Final = 8
_SHORT: Final = 100  # bytes of a read that always counts once
_SEQUENTIAL: Final = frozenset({b"\xff\xc0", b"\xff\xc1"})  # JPEG frames: baseline and extended, Huffman
_SCAN: Final = b"\xff\xda"  # byte stuffing keeps it out of compressed data


class CountedReads(io.BytesIO):
    """A file for Pillow that raises CorruptImage after MAX_READS reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data, self._reads, self._entry = data, 0, b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Like BytesIO.read. Raises CorruptImage."""
        part = super().read(size)
        self._reads += 1
        if len(part) < _SHORT:
            self._entry = part
        else:
            self._reads += self._extra_reads(part)
        if self._reads > MAX_READS:
            raise CorruptImage(
                f"Image file has too many segments, chunks, tags, strips or runs: more than {MAX_READS:,} reads. "
                "Re-save the image as a JPEG or PNG."
            )
        return part

    def _extra_reads(self, part: bytes) -> int:
        if self._data[:2] == b"\xff\xd8":
            # A JPEG segment is a marker of two bytes, its length in two bytes, and `part`.
            at = self.tell() - len(part) - 4
            is_parsed = part.startswith(_EXIF) or self._data[at : at + 2] in _JPEG_PARSED
            return len(part) // _JPEG_BYTES_PER_READ if is_parsed else 0
        # Pillow reads a TIFF tag's entry, of 12 bytes or in BigTIFF 20, just before its values.
        is_offsets = self._data[:2] in {b"II", b"MM"} and self._entry[:2] in _TIFF_OFFSETS
        return len(part) // _TIFF_BYTES_PER_READ if is_offsets and len(self._entry) in {12, 20} else 0


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """size: (width, height), in Pillow's order. Raises ImageTooLarge."""
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"Image is {width:,} x {height:,} = {width * height:,} pixels, limit {max_pixels:,} "
            "(ALIGNSEG_MAX_PIXELS). Scale it down."
        )


def check_scans(data: bytes) -> None:
    """Each scan of a JPEG is a few bytes, and a pass over the whole image. Raises CorruptImage above MAX_SCANS."""
    if (scans := count_scans(data)) > MAX_SCANS:
        raise CorruptImage(f"JPEG has {scans:,} scans, limit {MAX_SCANS}. Re-save the image.")


def count_scans(data: bytes) -> int:
    """How many scans a JPEG decoder may have to go through, at most. Source: ITU-T T.81, B.1 and B.2.

    A decoder ends a sequential image after a first scan that has all components, so the rest need not be searched:
    nearly all JPEGs are like that, and the search would hold the GIL.
    """
    at, components = 2, b""
    while len(marker := data[at : at + 2]) == 2 and marker[0] == 0xFF:
        if marker == _SCAN:
            return 1 if components and components == data[at + 4 : at + 5] else data.count(_SCAN)
        if marker in _SEQUENTIAL:
            components = data[at + 9 : at + 10]
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return data.count(_SCAN)
