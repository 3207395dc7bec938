"""Files in a million pieces: Pillow goes through segments, chunks and tags in Python, a microsecond or more for each.

33 MB of empty ones would take a codec's thread ten seconds, under the GIL. Real pictures have some tens; megabytes of
metadata, hundreds; a PNG of a hundred megabytes, in chunks of 8 kB, as libpng writes them, 12,000.
"""

from typing import Final

MOST: Final = 20_000
_ALONE: Final = frozenset(bytes([0xFF, low]) for low in (0x00, 0x01, *range(0xD0, 0xDA)))  # without a length


def too_many(data: bytes) -> bool:
    """Whether a JPEG, PNG or TIFF is in more than MOST pieces; False for all else."""
    if data.startswith(b"\xff\xd8\xff"):
        return _segments(data) > MOST
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _chunks(data) > MOST
    return data[:2] in {b"II", b"MM"} and _tags(data) > MOST


def _segments(data: bytes) -> int:
    """Those before the first scan, and each byte that lies between them. Source: ITU-T T.81, B.1.1.

    Counts no further than just beyond MOST.
    """
    at, count = 2, 0
    while count <= MOST:
        found = data.find(b"\xff", at)
        if found < 0:
            return count + len(data) - at
        marker = data[found : found + 2]
        if marker == b"\xff\xda":
            return count + found - at
        count += found - at + 1
        if marker == b"\xff\xff":
            at = found + 1
        else:
            at = found + 2 + (0 if marker in _ALONE else int.from_bytes(data[found + 2 : found + 4]))
    return count


def _chunks(data: bytes) -> int:
    """All to the end. Source: PNG, third edition, section 5.3. Counts no further than just beyond MOST."""
    at, count = 8, 0
    while at < len(data) and count <= MOST:
        count += 1
        at += 12 + int.from_bytes(data[at : at + 4])
    return count


def _tags(data: bytes) -> int:
    """How many the first directory says it has. Source: TIFF 6.0, section 2; BigTIFF has longer numbers."""
    order: Final = "little" if data[:2] == b"II" else "big"
    is_big = int.from_bytes(data[2:4], order) == 43
    at = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    return int.from_bytes(data[at : at + (8 if is_big else 2)], order)
