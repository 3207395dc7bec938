"""Bytes -> RGB: the limits first, then every kind of picture people send.

Safe in threads: each call owns its decoder, which lets go of the GIL while it decodes.
"""

import io
import math
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import CorruptImage, ImageTooLarge, RequestError, UnsupportedImage
from service.imaging import decode_limits, turbojpeg
from service.types import UInt8Array

Size = tuple[int, int]  # (height, width)
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_MAGIC: Final = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"))

# Of each odd tag, in words that differ: strangers would write into the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow's own bomb check warns at one size and raises at another; max_pixels below is the one limit.
Image.MAX_IMAGE_PIXELS = None

_MAX_SCANS: Final = 100  # cameras and libjpeg write 10 to 12
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_EXIF_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
_16_TO_8_BIT: Final = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


def decode(data: bytes, max_pixels: int, take: Callable[[int], None] = lambda pixels: None) -> UInt8Array:
    """Decode the first frame of a JPEG, PNG, WebP, BMP or TIFF.

    take: told the number of pixels before memory is spent on them; may raise a RequestError.

    Returns (H, W, 3) uint8 RGB, C-contiguous, upright after its EXIF orientation.
    Transparent pictures lie on white, as a browser shows them; 16-bit grey is scaled, not clipped.
    Raises UnsupportedImage, CorruptImage or ImageTooLarge, and nothing else, whatever the bytes are.
    """
    return decode_downscaled(data, max_pixels, take, lambda size: size)[0]


def decode_downscaled(
    data: bytes, max_pixels: int, take: Callable[[int], None], enough: Callable[[Size], Size]
) -> tuple[UInt8Array, Size]:
    """Like `decode`, but a large JPEG at a half, a quarter or an eighth, where that is enough: a tenth of the work.

    enough: from the picture's (height, width) to the smallest that will do. Returns the pixels, and the (height, width)
    that the picture really has.
    """
    try:
        with _open(data) as image:
            _check_size(image.size, max_pixels)
            _check_size(_tile_size(image), max_pixels)
            _check_scans(image, data)
            take(max(math.prod(image.size), math.prod(_tile_size(image))))
            by = _shrink(image, enough)
            pixels = _pixels(image, data)
            return pixels, (by * pixels.shape[0], by * pixels.shape[1])
    except RequestError:
        raise
    except Exception as error:
        # Decoders fail in any way they like (struct.error, IndexError, ...): to the client all of these are one thing.
        reason = str(error) or type(error).__name__
        raise CorruptImage(f"the picture does not decode: {reason}. Send a complete, undamaged file.") from error


def accept(pixels: UInt8Array, max_pixels: int, take: Callable[[int], None]) -> UInt8Array:
    """Pixels that came as such, (H, W, 3) uint8 RGB: under the same limits, and contiguous.

    Raises ImageTooLarge, or what `take` raises.
    """
    height, width = pixels.shape[:2]
    _check_size((width, height), max_pixels)
    take(height * width)
    return np.ascontiguousarray(pixels)


def _open(data: bytes) -> Image.Image:
    """Read the header alone."""
    if decode_limits.too_many(data):
        raise CorruptImage(
            f"the file is in more than {decode_limits.MOST} pieces (segments, chunks or tags). Save it anew."
        )
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        kind = _sniff(data)
        if kind is not None:
            raise CorruptImage(f"the {len(data)} bytes start as a {kind} whose header does not read.") from None
        found, expected = _foreign(data), "expected a JPEG, PNG, WebP, BMP or TIFF"
        if found is not None:
            raise UnsupportedImage(f"got {found}; {expected}. Convert it first.") from None
        told = f"{len(data)} bytes that start with {_shown(data[:8])}" if data else "an empty file"
        raise UnsupportedImage(f"got {told}; {expected}.") from None


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _foreign(data: bytes) -> str | None:
    """What people send besides, by its first bytes: to be refused by its name."""
    if data[4:8] == b"ftyp":  # ISO/IEC 14496-12: a brand follows
        return {b"avif": "an AVIF", b"avis": "an AVIF"}.get(data[8:12], "a HEIC picture or a film")
    begins = {b"GIF8": "a GIF", b"%PDF": "a PDF", b"<svg": "an SVG", b"<?xm": "an XML file or SVG"}
    return begins.get(data[:4])


def _shown(begin: bytes) -> str:
    """Text as text, all else in hex: people read it."""
    text = begin.decode("latin-1")
    return repr(text) if text.isascii() and text.isprintable() else begin.hex(" ")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the picture is {width}x{height}, {width * height} pixels; at most {max_pixels} are taken. "
            "Scale it down, or raise ALIGNSEG_MAX_PIXELS."
        )


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a TIFF's tile, which is inflated whole, however small the picture; else (0, 0)."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return int(width), int(height)


def _check_scans(image: Image.Image, data: bytes) -> None:
    """A JPEG may hold any number of scans; each is a few bytes, and a pass over the whole picture."""
    if image.format in turbojpeg.FORMATS and (scans := turbojpeg.count_scans(data)) > _MAX_SCANS:
        raise CorruptImage(f"the JPEG has {scans} scans, at most {_MAX_SCANS} are taken. Save it anew.")


def _shrink(image: Image.Image, enough: Callable[[Size], Size]) -> int:
    """Have a JPEG's decoder leave detail out: its blocks of 8x8 are as easily made 4x4, 2x2 or 1x1.

    Returns by how much. Only where that divides both sides: else a last, partial pixel would move all edges a little.
    """
    if image.format not in turbojpeg.FORMATS:
        return 1
    sideways = _turn(image) in _SIDEWAYS
    width, height = image.size[::-1] if sideways else image.size
    needed = enough((height, width))
    for by in (8, 4, 2):
        if width % by == height % by == 0 and height // by >= needed[0] and width // by >= needed[1]:
            image.draft(None, (image.width // by, image.height // by))
            return by
    return 1


def _pixels(image: Image.Image, data: bytes) -> UInt8Array:
    """Decode, by the shorter way where it goes, and turn the picture the way its EXIF orientation says."""
    straight = turbojpeg.decode(data, image)
    if straight is None:
        image.load()
        return _rgb(_upright(image))
    turn = _turn(image)
    return straight if turn is None else np.asarray(Image.fromarray(straight).transpose(turn))


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture the way its EXIF orientation says."""
    turn, image = _turn(image), _with_ink_as_stored(image)  # in this order: what is made of a picture has no EXIF
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the picture's EXIF orientation asks for (Pillow turns TIFFs itself while it loads them)."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:
        return None  # a broken EXIF block says nothing about the pixels
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _rgb(image: Image.Image) -> UInt8Array:
    if image.mode.startswith("I;16"):
        return _grey(_16_TO_8_BIT[np.asarray(image)])
    if image.mode in {"I", "F"}:
        return _grey(_to_8_bit(np.asarray(image, dtype=np.float32), unit_range=image.mode == "F"))
    if image.has_transparency_data:
        return np.asarray(_on_white(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # convert would copy


def _with_ink_as_stored(image: Image.Image) -> Image.Image:
    """Pillow takes every CMYK JPEG for Adobe's, which stores ink inverted."""
    wrongly = image.mode == "CMYK" and image.format in turbojpeg.FORMATS and "adobe" not in image.info
    return ImageChops.invert(image) if wrongly else image


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _grey(values: UInt8Array) -> UInt8Array:
    """(H, W) -> (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(values[..., None], (*values.shape, 3)))


def _to_8_bit(values: npt.NDArray[np.float32], *, unit_range: bool) -> UInt8Array:
    """Scale 32-bit or float grey: the smallest usual range that holds the values, else their own.

    unit_range: 0..1 is a usual range (floats); 0..255 and 0..65535 always are.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ceilings = (1.0, 255.0, 65535.0) if unit_range else (255.0, 65535.0)
    ceiling = next((c for c in ceilings if low >= 0 and high <= c), None)
    if ceiling is None:
        values, ceiling = values - low, max(high - low, 1.0)
    scaled: UInt8Array = np.rint(values * (255.0 / ceiling)).clip(0, 255).astype(np.uint8)
    return scaled
