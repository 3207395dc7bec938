"""Which image formats are read, and what is said of a file of another one."""

from typing import Final

from service.errors import CorruptImage, RequestError, UnsupportedImage
from service.imaging.heif import avif, heic

FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", *heic.FORMATS)  # Pillow's names
EXPECTED: Final = "expected JPEG, PNG, WebP, AVIF, BMP or TIFF"
_MAGIC: Final = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"))
_RAW: Final = "a camera's raw data"


def rejection(data: bytes) -> RequestError:
    """The error for a file that Pillow does not identify: damaged, or of a format that is not read."""
    if (known := _sniff(data)) is not None:
        return CorruptImage(f"Header of the {known} is damaged ({len(data):,} bytes). Send a complete, undamaged file.")
    if heic.is_heic(data) and not heic.FORMATS:
        return UnsupportedImage(f"Got a HEIC image, {EXPECTED}. {heic.ADVICE}")
    if (other := _sniff_other(data)) is not None:
        return UnsupportedImage(f"Got {other}, {EXPECTED}. Convert it first.")
    received = f"{len(data):,} bytes that start with {_printable(data[:8])}" if data else "an empty file"
    return UnsupportedImage(f"Got {received}, {EXPECTED}.")


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if avif.is_avif(data):
        return "AVIF"
    if heic.FORMATS and heic.is_heic(data):
        return "HEIC"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _sniff_other(data: bytes) -> str | None:
    """The name of another format that people send, by its first bytes."""
    if data[4:8] == b"ftyp":  # ISO/IEC 14496-12: a brand follows
        return _RAW if data[8:12] == b"crx " else "a video or an image of its kind"
    raw = dict.fromkeys((b"FUJI", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"), _RAW)
    begins = {b"GIF8": "a GIF", b"%PDF": "a PDF", b"<svg": "an SVG", b"<?xm": "an XML file or SVG"}
    return (begins | raw).get(data[:4])


def _printable(start: bytes) -> str:
    """ASCII as quoted text, everything else in hex."""
    text = start.decode("latin-1")
    return repr(text) if text.isascii() and text.isprintable() else start.hex(" ")
