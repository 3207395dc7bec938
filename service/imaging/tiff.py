"""Which TIFFs are read, and corrections where Pillow would read others than were meant.

TIFF is a family of formats. Read are the kinds that programs write for images to look at. libtiff, which decompresses
them, has a long record of vulnerabilities: files with codecs that such images do not use are rejected by their tags,
before libtiff sees them, so that uploads reach four of its decoders and no others.
"""

import struct
import sys
from typing import Final, NoReturn

from PIL import ImagePalette
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import UnsupportedImage
from service.imaging import tiff_directory
from service.imaging.tiff_directory import Directory

_COMPRESSIONS: Final = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
_OTHER_COMPRESSIONS: Final = {
    2: "CCITT fax", 3: "CCITT fax", 4: "CCITT fax", 6: "old-style JPEG", 32771: "none, padded to 16 bits",
    32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog", 33003: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG",
    34676: "LogLuv", 34677: "LogLuv", 34712: "JPEG 2000", 34713: "Nikon NEF", 34887: "LERC", 34892: "lossy DNG",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_UNCOMPRESSED, _JPEG = 1, 7
_GREY_INVERTED, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLORS: Final = {
    _GREY_INVERTED: "grey, white is zero", _GREY: "grey", _RGB: "RGB", _PALETTE: "palette", 4: "a transparency mask",
    _CMYK: "CMYK", _YCBCR: "YCbCr", _LAB: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab",
    32803: "a sensor's color filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw", 51177: "a depth map",
}  # fmt: skip
_COLOR_SAMPLES: Final = {_RGB: 3, _CMYK: 4, _YCBCR: 3, _LAB: 3}  # the others have 1
_FORMATS: Final = {1: "unsigned", 2: "signed", 3: "float", 5: "complex integer", 6: "complex float"}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
# By color: bits and sample format of each sample.
_SAMPLES: Final = {
    _GREY_INVERTED: {(bits, _UNSIGNED) for bits in (1, 2, 4, 8)},
    _GREY: {(bits, _UNSIGNED) for bits in (1, 2, 4, 8, 12, 16, 32)} | {(16, _SIGNED), (32, _SIGNED), (32, _FLOAT)},
    _RGB: {(8, _UNSIGNED), (16, _UNSIGNED)},
    _PALETTE: {(bits, _UNSIGNED) for bits in (1, 2, 4, 8)},
    _CMYK: {(8, _UNSIGNED), (16, _UNSIGNED)},
    _YCBCR: {(8, _UNSIGNED)},
    _LAB: {(8, _UNSIGNED)},
}
_THUMBNAIL, _MASK = 1, 4  # bits of SubfileType
_ASSOCIATED_ALPHA = 1
_READ: Final = (
    "TIFF is read as grey, RGB, palette, CMYK, YCbCr or CIE Lab, uncompressed or with LZW, Deflate, PackBits or JPEG. "
    "Save the image as PNG or JPEG."
)
_MAX_SUB_DIRECTORIES: Final = 16
_COLOR_MAP: Final = 320
_XMP: Final = "xmp"


def is_tiff(data: bytes) -> bool:
    """Whether the file begins as a TIFF or BigTIFF."""
    return tiff_directory.is_tiff(data)


def check(data: bytes) -> None:
    """Raises UnsupportedImage with the kind, unless the file is of a kind that is read right, and CorruptImage."""
    page = tiff_directory.first_page(data)
    kind = _unsupported_page(data, page) or _unsupported_layout(page) or _unsupported_samples(page)
    if kind is not None:
        raise UnsupportedImage(f"Got a TIFF with {kind}. {_READ}")


def reject(data: bytes) -> NoReturn:
    """Raises what `check` does; UnsupportedImage also for a kind that only Pillow does not know."""
    check(data)
    page = tiff_directory.first_page(data)
    raise UnsupportedImage(f"Got a TIFF with {_samples(page)} ({_color(page)}). {_READ}")


def _unsupported_page(data: bytes, page: Directory) -> str | None:
    """What the first page is, if it is not the image itself."""
    subfile = page.first(tiff_directory.SUBFILE_TYPE, 0)
    if tiff_directory.DNG_VERSION in page.tags or data[8:10] == b"CR":
        return "a camera's raw data (DNG or CR2)"
    if subfile & _MASK:
        return "a transparency mask as its first page"
    if subfile & _THUMBNAIL or any(_is_larger(other, page, 1) for other in _sub_directories(data, page)):
        return "a thumbnail as its first page, as in camera raw files (NEF, ARW, PEF)"
    following = _directory(data, page.next) if page.next else None
    if following is not None and _is_larger(following, page, 2):
        (width, height), (next_width, next_height) = page.size, following.size
        return f"a first page ({width}x{height}) that is a reduced copy of the second ({next_width}x{next_height})"
    return None


def _sub_directories(data: bytes, page: Directory) -> list[Directory]:
    positions = page.tags.get(tiff_directory.SUB_DIRECTORIES, ())[:_MAX_SUB_DIRECTORIES]
    return [directory for position in positions if (directory := _directory(data, position)) is not None]


def _directory(data: bytes, position: int) -> Directory | None:
    try:
        return tiff_directory.read(data, position)
    except (struct.error, OverflowError):
        return None


def _is_larger(other: Directory, page: Directory, factor: int) -> bool:
    (width, height), (page_width, page_height) = other.size, page.size
    if factor == 1:
        return width * height > page_width * page_height
    return width >= factor * page_width and height >= factor * page_height


def _unsupported_layout(page: Directory) -> str | None:
    """The compression, or the order of the samples, if it is not read."""
    compression, color = page.first(tiff_directory.COMPRESSION, 1), page.first(tiff_directory.PHOTOMETRIC, -1)
    if compression not in _COMPRESSIONS:
        return f"compression {compression} ({_OTHER_COMPRESSIONS.get(compression, 'unknown')})"
    if page.first(tiff_directory.DEPTH, 1) > 1:
        return "a volume of several layers"
    is_planar = page.first(tiff_directory.PLANAR, 1) == 2 and page.first(tiff_directory.SAMPLES, 1) > 1
    extra = page.tags.get(tiff_directory.EXTRA_SAMPLES, ())
    is_deep = page.first(tiff_directory.BITS, 1) == 16
    if is_planar and (
        color not in {_RGB, _CMYK} or _ASSOCIATED_ALPHA in extra or (is_deep and (color != _RGB or extra))
    ):
        return f"{_samples(page)} in separate planes ({_color(page)})"
    subsampling = page.tags.get(tiff_directory.CHROMA_SUBSAMPLING, (2, 2))
    if color == _YCBCR and compression == _UNCOMPRESSED and subsampling != (1, 1):
        return "uncompressed YCbCr with subsampled chroma"
    if color == _CMYK and page.first(tiff_directory.INKS, 1) != 1:
        return "other inks than CMYK"
    return None


def _unsupported_samples(page: Directory) -> str | None:
    """The color, depth or number format, if it is not read."""
    color = page.first(tiff_directory.PHOTOMETRIC, -1)
    if color not in _SAMPLES:
        return f"color {_color(page)}"
    bits = page.tags.get(tiff_directory.BITS, (1,))
    formats = page.tags.get(tiff_directory.SAMPLE_FORMAT, (_UNSIGNED,))
    count = page.first(tiff_directory.SAMPLES, _COLOR_SAMPLES.get(color, 1))
    extra = count - _COLOR_SAMPLES.get(color, 1)
    is_known = len(set(bits)) == len(set(formats)) == 1 and (bits[0], formats[0]) in _SAMPLES[color]
    if page.first(tiff_directory.COMPRESSION, 1) == _JPEG and bits[0] != 8:
        is_known = False
    if not is_known or extra < 0 or (extra and color == _GREY and bits[0] != 8):
        return f"{_samples(page)} ({_color(page)})"
    return None


def _samples(page: Directory) -> str:
    """Such as "3 samples of 16 bits, unsigned"."""
    bits = page.tags.get(tiff_directory.BITS, (1,))
    formats = page.tags.get(tiff_directory.SAMPLE_FORMAT, (_UNSIGNED,))
    count = page.first(tiff_directory.SAMPLES, 1)
    names = "/".join(sorted({_FORMATS.get(value, f"format {value}") for value in formats}))
    depths = "/".join(map(str, sorted(set(bits))))
    return f"{count} {'sample' if count == 1 else 'samples'} of {depths} bits, {names}"


def _color(page: Directory) -> str:
    color = page.first(tiff_directory.PHOTOMETRIC, -1)
    return _COLORS.get(color, f"unknown, {color}") if color >= 0 else "not named"


def correct(image: TiffImageFile) -> None:
    """Change how Pillow will decode an open, checked file, where its own reading is wrong."""
    image.info.pop(_XMP, None)  # Pillow would turn the image by it; see orientation.py
    is_deep_plane = image.tag_v2.get(tiff_directory.PLANAR, 1) == 2 and image.tag_v2[tiff_directory.BITS][0] == 16
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    tiles = []
    for tile in image.tile:
        raw_mode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name == "libtiff":  # which gives numbers in this machine's byte order
            native = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
            raw_mode = native.get(raw_mode, raw_mode) if sys.byteorder == "little" else raw_mode
        elif is_deep_plane:  # Pillow reads planes with 8 bits, whatever they have
            raw_mode = f"{raw_mode};16{order}"
        tiles.append(tile._replace(args=(raw_mode, *rest)))
    image.tile = tiles
    color_map = image.tag_v2.get(_COLOR_MAP, ())
    if image.mode in {"P", "PA"} and max(color_map, default=256) < 256:  # written with 8 bits, against TIFF 6.0
        image.palette = ImagePalette.raw("RGB;L", bytes(color_map))
