"""Class map -> PNG, JPEG, WebP or NumPy file.

Encoding can cost more than the network, so the settings are chosen by measurement: benchmarks/model/codecs.py.
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from PIL import Image

from service.errors import NotAcceptable
from service.rendering import png
from service.rendering.class_stats import check_ids
from service.rendering.options import OVERLAY_ALPHA
from service.rendering.selection import UNSELECTED
from service.types import UInt8Array

_PNG: Final = {"compress_level": 1, "compress_type": 3}  # Z_RLE; see png.py
# Overlays are for viewing. Quality 85 with 4:2:0 takes half the time of 4:4:4. WebP's other methods take two to four
# times as long as method 0 and save a fifth of the bytes.
_JPEG: Final = {"quality": 85, "subsampling": "4:2:0"}
_WEBP: Final = {"quality": 80, "method": 0}
_MAX_SIDE: Final = {"JPEG": 65_500, "WEBP": 16_383}  # libjpeg's and WebP's own limits


def indexed_png(
    ids: UInt8Array, palette: UInt8Array, *, names: Sequence[str] = (), with_unselected: bool = False
) -> bytes:
    """Indexed PNG: each pixel's index is its class id, the palette has the classes' colours.

    ids: (H, W) uint8. palette: (num_classes, 3) uint8 RGB.
    names: written to the text chunk "classes" as JSON, by id. with_unselected: ids may be UNSELECTED, transparent.
    Raises InferenceFailed when an id has no colour.
    """
    highest = int(ids.max())
    transparent = UNSELECTED if with_unselected and highest == UNSELECTED else None
    text = ("classes", _by_id(tuple(names))) if names else None
    return png.indexed_png(ids, _png_palette(highest, palette, transparent), transparent, text)


def overlay_png(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """RGB PNG of an overlay; see `overlay`. Lossless, and twenty times the work of a JPEG."""
    return _saved(overlay(pixels, ids, palette, alpha), "PNG", **_PNG)


def overlay_jpeg(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """JPEG of an overlay; see `overlay`. Raises NotAcceptable above the format's size limit."""
    _check_size(ids, "JPEG")
    return _saved(overlay(pixels, ids, palette, alpha), "JPEG", **_JPEG)


def overlay_webp(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """Lossy WebP of an overlay; see `overlay`. Raises NotAcceptable above the format's size limit."""
    _check_size(ids, "WEBP")
    return _saved(overlay(pixels, ids, palette, alpha), "WEBP", **_WEBP)


def overlay(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float) -> Image.Image:
    """The classes' colours blended over the image; UNSELECTED pixels show the image unchanged.

    pixels: (H, W, 3) uint8 RGB. ids: (H, W) uint8. alpha: 0 shows the image only, 1 the colours only.
    """
    image, colors = Image.fromarray(pixels), _colorized(ids, palette)
    if int(ids.max()) < UNSELECTED:
        return Image.blend(image, colors, alpha)
    # `image` is a copy of `pixels`: Pillow keeps RGB in four bytes a pixel.
    image.paste(colors, mask=Image.fromarray(ids).point([round(alpha * 255)] * UNSELECTED + [0]))
    return image


def class_mask_png(ids: UInt8Array, class_id: int) -> bytes:
    """8-bit grey PNG: 255 where the class is, 0 elsewhere."""
    return png.grey_png((ids == class_id).view(np.uint8) * np.uint8(255))


def class_bitmap_png(ids: UInt8Array, class_id: int) -> bytes:
    """1-bit grey PNG: white where the class is. A sixth of the work of 8 bits."""
    return png.mask_png(ids == class_id)


def class_overlay_png(ids: UInt8Array, class_id: int, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """RGBA PNG: the class's colour at `alpha` where the class is, fully transparent elsewhere."""
    color = np.array([*palette[class_id], round(alpha * 255)], dtype=np.uint8)
    return png.rgba_png(ids == class_id, color)


def confidence_png(confidence: UInt8Array) -> bytes:
    """8-bit grey PNG of (H, W) uint8: 255 times the probability of each pixel's class."""
    return png.grey_png(confidence)


def npy(ids: UInt8Array) -> bytes:
    """NumPy file of (H, W) uint8; numpy.load(io.BytesIO(...)) reads it."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(ids), allow_pickle=False)
    return out.getvalue()


@lru_cache(16)
def _by_id(names: tuple[str, ...]) -> str:
    return orjson.dumps(dict(enumerate(names)), option=orjson.OPT_NON_STR_KEYS).decode()


def _png_palette(highest: int, palette: UInt8Array, transparent: int | None) -> UInt8Array:
    """The palette, padded to 256 colours if one is transparent. Raises InferenceFailed when an id has no colour."""
    if transparent is None:
        check_ids(highest, len(palette))
        return palette
    full = np.zeros((256, 3), dtype=np.uint8)
    full[: len(palette)] = palette
    return full


def _colorized(ids: UInt8Array, palette: UInt8Array) -> Image.Image:
    """Image of mode RGB: each pixel its class's colour, UNSELECTED ones black."""
    highest = int(ids.max())
    image = Image.fromarray(ids)
    image.putpalette(_png_palette(highest, palette, UNSELECTED if highest == UNSELECTED else None).tobytes())
    return image.convert("RGB")


def _check_size(ids: UInt8Array, kind: str) -> None:
    height, width = ids.shape
    if max(height, width) > _MAX_SIDE[kind]:
        raise NotAcceptable(
            f"Image is {width:,} x {height:,} pixels; a {kind} has at most {_MAX_SIDE[kind]:,} pixels per side. "
            "Use Accept: image/png or application/json."
        )


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
