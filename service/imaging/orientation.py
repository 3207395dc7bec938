"""Which way up an image is shown: as browsers show it, so that the mask lies on the image that its sender sees.

The rule, as measured with Chromium 156 (tests/e2e/web/test_orientation.py compares pixels):

- JPEG: the tag Orientation of the first Exif segment before the first scan. PNG: of the first eXIf chunk before IDAT.
- There, the first entry of the first directory that has the tag, the type SHORT, one value, and a value of 1 to 8.
- AVIF: the container's properties `irot` and `imir`, which Pillow gives as Exif; the file's own Exif is ignored.
- Everything else is ignored: XMP in every format, Exif in WebP, text chunks of PNG, the thumbnail's directory.
- TIFF, which browsers do not show: the tag Orientation belongs to the format, and Pillow applies it while it loads.
- HEIC, which Chromium does not show: libheif turns it while it decodes, as Safari does; see heif/heic.py.
"""

import struct
from typing import Final

from PIL import Image

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS: Final = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_TAG: Final = 0x0112
_SHORT: Final = 3
_PREFIX: Final = b"Exif\0\0"
_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_NO_LENGTH: Final = frozenset((0x01, *range(0xD0, 0xD9)))  # JPEG markers that stand alone
_APP1, _SCAN, _FILL = 0xE1, 0xDA, 0xFF


def turn(image: Image.Image, data: bytes) -> Image.Transpose | None:
    """How to turn the decoded pixels, or None.

    image: opened from `data`, so that the number of segments and chunks is within the limits.
    """
    if image.format in {"JPEG", "MPO"}:
        exif = _jpeg_exif(data)
    elif image.format == "PNG":
        exif = _png_exif(data)
    elif image.format == "AVIF":
        return _TURNS.get(_avif_orientation(image))
    else:
        return None
    return _TURNS.get(_orientation(exif))


def _avif_orientation(image: Image.Image) -> int:
    """1 to 8. Not by `Image.getexif`, which takes XMP's where there is no other."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(_TAG, 1))


def _jpeg_exif(data: bytes) -> bytes:
    """The content of the first Exif segment, after its prefix of six bytes. Source: ITU-T T.81, B.1.1."""
    at = 2
    while len(data) > at + 4 and data[at] == 0xFF and (marker := data[at + 1]) != _SCAN:
        if marker == _FILL or marker in _NO_LENGTH:
            at += 1 if marker == _FILL else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _APP1 and data.startswith(_PREFIX[:5], at + 4):
            return data[at + 4 + len(_PREFIX) : end]
        at = end
    return b""


def _png_exif(data: bytes) -> bytes:
    """The content of the first eXIf chunk before the pixels. Source: PNG, 5.3 and 11.3.4.5."""
    at = 8
    while (name := data[at + 4 : at + 8]) and name != b"IDAT":
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if name == b"eXIf":
            return data[at + 8 : end]
        at = end + 4  # the checksum
    return b""


def _orientation(exif: bytes) -> int:
    """1 to 8; 0 where there is none. Source: Exif 2.32, 4.5 and 4.6.4."""
    order = _ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return 0
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return 0
    (count,) = struct.unpack_from(order + "H", exif, start)
    complete = min(count, (len(exif) - start - 2) // 12)
    entries = exif[start + 2 : start + 2 + 12 * complete]
    for tag, kind, values, value in struct.iter_unpack(order + "HHIH2x", entries):
        if tag == _TAG and kind == _SHORT and values == 1 and 1 <= value <= 8:
            return int(value)
    return 0
