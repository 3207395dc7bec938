"""Encoded bytes -> RGB: limits first, then every kind of image people send.

Thread-safe: each call owns its decoder, which releases the GIL while it decodes.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import CorruptImage, RequestError, UnsupportedImage
from service.imaging import incomplete_files, orientation, tiff, turbojpeg
from service.imaging.decode_limits import CountedReads, check_scans, check_size
from service.imaging.file_kinds import FORMATS, rejection
from service.imaging.heif import avif
from service.imaging.pillow_rgb import to_rgb, undecoded_tiff
from service.types import Size, UInt8Array

# Pillow warns of each unusual tag, with text from the file: uploads could write into the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow's own limit warns at one size and raises at another; max_pixels below is the only limit.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # codec threads decode several images at once

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_MIN_UPPER_BYTE: Final = 16
_ANY_SIZE: Final = 2**63


def decode(data: bytes, max_pixels: int, reserve: Callable[[int], None] = lambda pixels: None) -> UInt8Array:
    """Decode the first frame of a JPEG, PNG, WebP, AVIF, BMP or TIFF, or of a HEIC, see heif/heic.py.

    reserve: called with the number of pixels before memory is allocated for them; may raise a RequestError.

    Returns (H, W, 3) uint8 RGB, C-contiguous, upright as browsers show it; see orientation.py.
    Transparent images are composed on white, as browsers do; deep grey is scaled, not clipped; see pillow_rgb.py.
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
            if isinstance(image, TiffImageFile):
                tiff.check(data)
            check_size(image.size, max_pixels)
            check_size(_tile_size(image), max_pixels)
            if image.format in turbojpeg.FORMATS:
                check_scans(data)
            largest_frame = avif.check(data, max_pixels) if image.format == "AVIF" else 0
            reserve(max(math.prod(image.size), math.prod(_tile_size(image)), largest_frame))
            turn = orientation.turn(image, data)
            factor = _draft(image, turn, min_size)
            pixels = _turned(_stored_pixels(image, data), turn)
            return pixels, (factor * pixels.shape[0], factor * pixels.shape[1])
    except RequestError:
        raise
    except Exception as error:
        # Decoders raise anything (struct.error, IndexError, ...); to the client all of these are one error.
        reason = str(error) or type(error).__name__
        raise CorruptImage(f"Image cannot be decoded: {reason}. Send a complete, undamaged file.") from error


def decode_file(path: Path) -> UInt8Array:
    """`decode` a file of one's own, of any size. Raises OSError, and RequestError with the path."""
    try:
        return decode(path.read_bytes(), _ANY_SIZE)
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def decode_pillow(image: Image.Image) -> UInt8Array:
    """Like `decode`, of a Pillow image, without its EXIF orientation, as in its own pixels. Raises RequestError."""
    if (file := undecoded_tiff(image)) is not None:
        return decode(file, _ANY_SIZE)
    return _to_rgb(image)


def check_array(pixels: UInt8Array, max_pixels: int, reserve: Callable[[int], None]) -> UInt8Array:
    """Apply the same limits to pixels that came decoded, (H, W, 3) uint8 RGB; returns them C-contiguous.

    Raises ImageTooLarge, or what `reserve` raises.
    """
    height, width = pixels.shape[:2]
    check_size((width, height), max_pixels)
    reserve(height * width)
    return np.ascontiguousarray(pixels)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header only."""
    try:
        return Image.open(CountedReads(data), formats=FORMATS)
    except (OSError, ValueError) as error:
        if tiff.is_tiff(data):
            tiff.check(data)
        if (without_metadata := incomplete_files.without_metadata(data)) is not None:
            return _open(without_metadata)
        if not isinstance(error, UnidentifiedImageError):
            raise
        if tiff.is_tiff(data):
            tiff.reject(data)
        raise rejection(data) from None


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a TIFF's tile, which is decompressed whole, however small the image; else (0, 0)."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return int(width), int(height)


def _draft(image: Image.Image, turn: Image.Transpose | None, min_size: Callable[[Size], Size]) -> int:
    """Have the JPEG decoder make its blocks of 8x8 pixels as 4x4, 2x2 or 1x1.

    Returns the factor: 1, 2, 4 or 8. Only one that divides both sides: a partial last pixel would shift all edges.
    """
    if image.format not in turbojpeg.FORMATS:
        return 1
    width, height = image.size[::-1] if turn in orientation.SIDEWAYS else image.size
    min_height, min_width = min_size((height, width))
    for factor in (8, 4, 2):
        if width % factor == height % factor == 0 and height // factor >= min_height and width // factor >= min_width:
            image.draft(None, (image.width // factor, image.height // factor))
            return factor
    return 1


def _stored_pixels(image: ImageFile.ImageFile, data: bytes) -> UInt8Array:
    """Decode, by libjpeg-turbo where possible, without the orientation. Raises UnsupportedImage, and what Pillow does.

    Pillow applies the orientation of a TIFF.
    """
    pixels = turbojpeg.decode(data, image)
    if pixels is not None:
        return pixels
    if isinstance(image, TiffImageFile):
        tiff.correct(image)
    is_deep = any(";16" in str(tile.args) for tile in image.tile) and len(image.getbands()) > 1
    loaded = _loaded(image, data)
    if is_deep:
        _check_depth(loaded)
    return _to_rgb(loaded)


def _loaded(image: ImageFile.ImageFile, data: bytes) -> ImageFile.ImageFile:
    """Decode by Pillow; once more if it rejects the file for something that browsers ignore."""
    size = image.size  # after `draft`
    try:
        image.load()
        return image
    except (OSError, ValueError, SyntaxError):
        is_jpeg = image.format in turbojpeg.FORMATS
        repaired = (
            incomplete_files.complete_jpeg(data, image.mode) if is_jpeg else incomplete_files.without_metadata(data)
        )
        if repaired is None:
            raise
    image = Image.open(CountedReads(repaired), formats=FORMATS)
    image.draft(None, size)  # type: ignore[no-untyped-call, unused-ignore]
    image.load()
    return image


def _to_rgb(image: Image.Image) -> UInt8Array:
    image.load()  # a ValueError of the decoder means something else than one of to_rgb
    try:
        return to_rgb(image)
    except ValueError as error:
        raise UnsupportedImage(str(error)) from error


def _check_depth(image: Image.Image) -> None:
    """image: 16 bits a channel, of which Pillow keeps the upper 8. Raises UnsupportedImage where these are nearly 0."""
    colors = [band for band in image.getbands() if band != "A"]
    if max(np.asarray(image.getchannel(band)).max(initial=0) for band in colors) < _MIN_UPPER_BYTE:
        raise UnsupportedImage(
            f"All values of this {image.format} of 16 bits a channel are below 4,096 of 65,535, as if 8 or 12 bits "
            "were stored in 16. Scale the values to 16 bits, or save the image with 8 bits."
        )


def _turned(pixels: UInt8Array, turn: Image.Transpose | None) -> UInt8Array:
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
