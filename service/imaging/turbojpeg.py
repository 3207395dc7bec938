"""Most JPEGs -> RGB, straight from libjpeg-turbo: the pixels that Pillow would give, bit by bit, in half the time.

Pillow asks the same library, but for four bytes a pixel, which it then packs into three, piece by piece. And here the
GIL is asked for less often: with the event loop and other codecs about, each time costs a thread more than the work.
"""

from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from service.types import UInt8Array

FORMATS: Final = frozenset({"JPEG", "MPO"})  # an MPO is a JPEG with more of them behind it
_SEQUENTIAL: Final = frozenset({b"\xff\xc0", b"\xff\xc1"})  # frames: baseline and extended, Huffman
_SCAN: Final = b"\xff\xda"  # stuffing keeps it out of compressed data
_MODES: Final = frozenset({"L", "RGB"})  # CMYK is ink, and which way round only Pillow's reading of the header tells


def decode(data: bytes, image: Image.Image) -> UInt8Array | None:
    """Decode what Pillow has opened and found small enough.

    image: made of `data`, not loaded; where its `draft` was asked for less detail, so much is decoded.
    Returns (H, W, 3) uint8 RGB of image.size, as stored: not turned after its EXIF orientation. None where that is
    Pillow's business: other formats, other colours, and whatever is damaged, for it knows how badly, and says how.
    """
    if image.format not in FORMATS or image.mode not in _MODES:
        return None
    # Memory of our own: the header that was checked says how much, not what another parser takes for the header.
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", min_height=image.height, min_width=image.width, buffer=pixels)
    except ValueError:
        return None
    return pixels if found.shape == pixels.shape else None


def count_scans(data: bytes) -> int:
    """How many scans a decoder may have to go through, at most. Source: ITU-T T.81, B.1 and B.2.

    A sequential picture whose first scan has all components ends with it, and what may follow is not read: as nearly
    all are like that, their thousands of bytes need not be searched, under the GIL.
    """
    at, components = 2, b""
    while len(marker := data[at : at + 2]) == 2 and marker[0] == 0xFF:
        if marker == _SCAN:
            return 1 if components and components == data[at + 4 : at + 5] else data.count(_SCAN)
        if marker in _SEQUENTIAL:
            components = data[at + 9 : at + 10]
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return data.count(_SCAN)
