"""Encoded bytes -> RGB: limits first, then every kind of image people send.

Thread-safe: each call owns its decoder, which releases the GIL while it decodes.
"""

import math
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import CorruptImage, RequestError, UnsupportedImage
from service.imaging import turbojpeg
from service.imaging.decode_limits import CountedReads, check_scans, check_size
from service.types import Size, UInt8Array

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_EXPECTED: Final = "expected JPEG, PNG, WebP, BMP or TIFF"
_MAGIC: Final = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"))

# Pillow warns of each unusual tag, with text from the file: uploads could write into the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow's own limit warns at one size and raises at another; max_pixels below is the only limit.
Image.MAX_IMAGE_PIXELS = None

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


def decode(data: bytes, max_pixels: int, reserve: Callable[[int], None] = lambda pixels: None) -> UInt8Array:
    """Decode the first frame of a JPEG, PNG, WebP, BMP or TIFF.

    reserve: called with the number of pixels before memory is allocated for them; may raise a RequestError.

    Returns (H, W, 3) uint8 RGB, C-contiguous, upright after its EXIF orientation.
    Transparent images are composed on white, as browsers do; 16-bit grey is scaled, not clipped.
    Raises UnsupportedImage, CorruptImage or ImageTooLarge, or what `reserve` raises; nothing else, whatever the bytes.
    """
    return decode_downscaled(data, max_pixels, reserve, lambda size: size)[0]


def decode_downscaled(
    data: bytes, max_pixels: int, reserve: Callable[[int], None], min_size: Callable[[Size], Size]
) -> tuple[UInt8Array, Size]:
    """Like `decode`, but a large JPEG at 1/2, 1/4 or 1/8 of its size where that suffices: a tenth of the work.

    min_size: from the image's (height, width) to the smallest (height, width) that suffices.
    Returns the pixels and the image's own (height, width).
    """
    try:
        with _open(data) as image:
            check_size(image.size, max_pixels)
            check_size(_tile_size(image), max_pixels)
            if image.format in turbojpeg.FORMATS:
                check_scans(data)
            reserve(max(math.prod(image.size), math.prod(_tile_size(image))))
            factor = _draft(image, min_size)
            pixels = _pixels(image, data)
            return pixels, (factor * pixels.shape[0], factor * pixels.shape[1])
    except RequestError:
        raise
    except Exception as error:
        # Decoders raise anything (struct.error, IndexError, ...); to the client all of these are one error.
        reason = str(error) or type(error).__name__
        raise CorruptImage(f"Image cannot be decoded: {reason}. Send a complete, undamaged file.") from error


def check_array(pixels: UInt8Array, max_pixels: int, reserve: Callable[[int], None]) -> UInt8Array:
    """Apply the same limits to pixels that came decoded, (H, W, 3) uint8 RGB; returns them C-contiguous.

    Raises ImageTooLarge, or what `reserve` raises.
    """
    height, width = pixels.shape[:2]
    check_size((width, height), max_pixels)
    reserve(height * width)
    return np.ascontiguousarray(pixels)


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    try:
        return Image.open(CountedReads(data), formats=FORMATS)
    except UnidentifiedImageError:
        known, other = _sniff(data), _sniff_other(data)
        if known is not None:
            raise CorruptImage(
                f"Header of the {known} is damaged ({len(data):,} bytes). Send a complete, undamaged file."
            ) from None
        if other is not None:
            raise UnsupportedImage(f"Got {other}, {_EXPECTED}. Convert it first.") from None
        received = f"{len(data):,} bytes that start with {_printable(data[:8])}" if data else "an empty file"
        raise UnsupportedImage(f"Got {received}, {_EXPECTED}.") from None


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _sniff_other(data: bytes) -> str | None:
    """The name of another format that people send, by its first bytes."""
    if data[4:8] == b"ftyp":  # ISO/IEC 14496-12: a brand follows
        return {b"avif": "an AVIF", b"avis": "an AVIF"}.get(data[8:12], "a HEIC image or a video")
    begins = {b"GIF8": "a GIF", b"%PDF": "a PDF", b"<svg": "an SVG", b"<?xm": "an XML file or SVG"}
    return begins.get(data[:4])


def _printable(start: bytes) -> str:
    """ASCII as quoted text, everything else in hex."""
    text = start.decode("latin-1")
    return repr(text) if text.isascii() and text.isprintable() else start.hex(" ")


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a TIFF's tile, which is decompressed whole, however small the image; else (0, 0)."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return int(width), int(height)


def _draft(image: Image.Image, min_size: Callable[[Size], Size]) -> int:
    """Have the JPEG decoder make its blocks of 8x8 pixels as 4x4, 2x2 or 1x1.

    Returns the factor: 1, 2, 4 or 8. Only one that divides both sides: a partial last pixel would shift all edges.
    """
    if image.format not in turbojpeg.FORMATS:
        return 1
    sideways = _turn(image) in _SIDEWAYS
    width, height = image.size[::-1] if sideways else image.size
    min_height, min_width = min_size((height, width))
    for factor in (8, 4, 2):
        if width % factor == height % factor == 0 and height // factor >= min_height and width // factor >= min_width:
            image.draft(None, (image.width // factor, image.height // factor))
            return factor
    return 1


def _pixels(image: Image.Image, data: bytes) -> UInt8Array:
    """Decode, by libjpeg-turbo where possible, and apply the EXIF orientation."""
    stored = turbojpeg.decode(data, image)
    if stored is None:
        image.load()
        return _rgb(_upright(image))
    turn = _turn(image)
    return stored if turn is None else np.asarray(Image.fromarray(stored).transpose(turn))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation."""
    turn, image = _turn(image), _correct_cmyk(image)  # in this order: the corrected image has no EXIF
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn the image after its EXIF orientation (Pillow turns TIFFs itself while it loads them)."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:
        return None  # the pixels may be fine all the same
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _rgb(image: Image.Image) -> UInt8Array:
    if image.mode.startswith("I;16"):
        return _grey(_16_TO_8_BIT[np.asarray(image)])
    if image.mode in {"I", "F"}:
        return _grey(_to_8_bit(np.asarray(image, dtype=np.float32), unit_range=image.mode == "F"))
    if image.has_transparency_data:
        return np.asarray(_on_white(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # a convert would copy


def _correct_cmyk(image: Image.Image) -> Image.Image:
    """Pillow takes every CMYK JPEG for Adobe's, which stores inverted values; others don't."""
    is_inverted = image.mode == "CMYK" and image.format in turbojpeg.FORMATS and "adobe" not in image.info
    return ImageChops.invert(image) if is_inverted else image


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _grey(values: UInt8Array) -> UInt8Array:
    """(H, W) -> (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(values[..., None], (*values.shape, 3)))


def _to_8_bit(values: npt.NDArray[np.float32], *, unit_range: bool) -> UInt8Array:
    """Scale 32-bit or float grey from the smallest usual range that holds the values, else from their own range.

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
