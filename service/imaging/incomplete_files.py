"""Files that browsers show and Pillow rejects: a JPEG without its end marker, a PNG with a large profile or text.

Only called after Pillow has rejected a file, and after its size is checked: valid files cost nothing here.
"""

import re
from typing import Final

import simplejpeg

_END: Final = b"\xff\xd9"
_SCAN: Final = 0xDA
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive, with Huffman coding
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # FF 00 is data, D0 to D7 restart markers
_COEFFICIENTS: Final = 64
_COLOR_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # by Pillow's mode

_PNG_HEADER_BYTES: Final = 8
_ANCILLARY: Final = 0x20  # of a chunk's first letter: a decoder may ignore it (PNG, section 5.4)
_PNG_KEPT: Final = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})  # transparency, orientation, animation
MAX_CHUNKS: Final = 20_000  # as decode_limits.MAX_READS


def complete_jpeg(data: bytes, mode: str) -> bytes | None:
    """The file with its end marker, if that is all it lacks: every scan is there, to its last bit. Otherwise None.

    mode: Pillow's, of the image's header. None too for subsampled CMYK, which libjpeg-turbo's API does not decode.
    """
    completed = data.removesuffix(_END[:1]) + _END
    if mode not in _COLOR_SPACES or not _has_all_scans(data):
        return None
    try:
        simplejpeg.decode_jpeg(completed, _COLOR_SPACES[mode])  # strict: an error if a bit of the last scan is missing
    except ValueError:
        return None
    return completed


def _has_all_scans(data: bytes) -> bool:
    """Whether the file ends in a scan, and its scans have every bit of every coefficient. ITU-T T.81, B.2 and G.1."""
    missing: dict[int, list[int]] = {}  # component id -> lowest bit that each coefficient still lacks
    at = 2
    while len(marker := data[at : at + 2]) == len(_END) and marker[0] == 0xFF and marker != _END:
        size = int.from_bytes(data[at + 2 : at + 4])
        segment = data[at + 4 : at + 2 + size]
        at += 2 + size
        if marker[1] in _FRAMES:
            missing = {component: [1] * _COEFFICIENTS for component in segment[6::3]}
        elif marker[1] == _SCAN:
            _note_scan(segment, missing)
            following = _NEXT_MARKER.search(data, at)
            if following is None:
                return bool(missing) and not any(map(any, missing.values()))
            at = following.start()
    return False


def _note_scan(segment: bytes, missing: dict[int, list[int]]) -> None:
    count = segment[0] if segment else 0
    if len(segment) < 1 + 2 * count + 3:
        return
    first, last, low_bit = segment[-3], segment[-2], segment[-1] & 15
    for component in segment[1 : 1 + 2 * count : 2]:
        bits = missing.get(component, [])
        bits[first : last + 1] = [low_bit] * len(bits[first : last + 1])


def without_metadata(data: bytes) -> bytes | None:
    """A PNG without its colour profile, texts and the like, which Pillow rejects if damaged or above 1 MB.

    None if it has none, for files of more than MAX_CHUNKS chunks, and for other formats.
    """
    if not data.startswith(b"\x89PNG"):
        return None
    kept, at = [data[:_PNG_HEADER_BYTES]], _PNG_HEADER_BYTES
    for _ in range(MAX_CHUNKS):
        if at >= len(data):
            without = b"".join(kept)
            return without if len(without) < len(data) else None
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind in _PNG_KEPT or not kind or not kind[0] & _ANCILLARY:
            kept.append(data[at:end])
        at = end
    return None
