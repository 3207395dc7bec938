"""Maps -> pictures. A picture can cost more than the network, so each encoder's settings are chosen with care.

benchmarks/model/codecs.py measures them all.
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
from service.rendering.segmentation import UNSELECTED
from service.types import UInt8Array

_PNG: Final = {"compress_level": 1, "compress_type": 3}  # Z_RLE; see png.py
# Overlays are for the eye. Quality 85 with 4:2:0 takes half the time of 4:4:4. WebP's other methods take two to
# four times as long as method 0 and save a fifth of the bytes.
_JPEG: Final = {"quality": 85, "subsampling": "4:2:0"}
_WEBP: Final = {"quality": 80, "method": 0}
_LONGEST: Final = {"JPEG": 65_500, "WEBP": 16_383}  # libjpeg's and WebP's own limits


def indexed_png(
    ids: UInt8Array, palette: UInt8Array, *, names: Sequence[str] = (), with_unselected: bool = False
) -> bytes:
    """PNG of palette mode: each pixel's index is its class id, the palette the classes' colours.

    ids: (H, W) uint8. palette: (num_classes, 3) uint8 RGB. names: go into the text chunk "classes" as JSON, by id.
    with_unselected: the ids may be UNSELECTED, which is transparent.
    Raises InferenceFailed when an id has no colour.
    """
    highest = int(ids.max())
    transparent = UNSELECTED if with_unselected and highest == UNSELECTED else None
    text = ("classes", _by_id(tuple(names))) if names else None
    return png.indexed_png(ids, _colours(highest, palette, transparent), transparent, text)


def overlay_png(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """RGB PNG of an overlay; see `overlay`. Exact, and twenty times the work of a JPEG."""
    return _saved(overlay(pixels, ids, palette, alpha), "PNG", **_PNG)


def overlay_jpeg(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """JPEG of an overlay; see `overlay`. Raises NotAcceptable beyond the format's size."""
    _check_size(ids, "JPEG")
    return _saved(overlay(pixels, ids, palette, alpha), "JPEG", **_JPEG)


def overlay_webp(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float = OVERLAY_ALPHA) -> bytes:
    """Lossy WebP of an overlay; see `overlay`. Raises NotAcceptable beyond the format's size."""
    _check_size(ids, "WEBP")
    return _saved(overlay(pixels, ids, palette, alpha), "WEBP", **_WEBP)


def overlay(pixels: UInt8Array, ids: UInt8Array, palette: UInt8Array, alpha: float) -> Image.Image:
    """The classes' colours blended over the picture; UNSELECTED pixels show the picture as it is.

    pixels: (H, W, 3) uint8 RGB. ids: (H, W) uint8. alpha: 0 shows the picture alone, 1 the colours alone.
    """
    picture, colours = Image.fromarray(pixels), _painted(ids, palette)
    if int(ids.max()) < UNSELECTED:
        return Image.blend(picture, colours, alpha)
    # Onto a copy: Pillow keeps RGB in four bytes a pixel, so fromarray made one.
    picture.paste(colours, mask=Image.fromarray(ids).point([round(alpha * 255)] * UNSELECTED + [0]))
    return picture


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
    """NumPy's file format of (H, W) uint8: numpy.load(io.BytesIO(...)) reads it."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(ids), allow_pickle=False)
    return out.getvalue()


@lru_cache(16)
def _by_id(names: tuple[str, ...]) -> str:
    return orjson.dumps(dict(enumerate(names)), option=orjson.OPT_NON_STR_KEYS).decode()


def _colours(highest: int, palette: UInt8Array, transparent: int | None) -> UInt8Array:
    """The palette, as long as the highest id needs it. Raises InferenceFailed when that has no colour."""
    if transparent is None:
        check_ids(highest, len(palette))
        return palette
    full = np.zeros((256, 3), dtype=np.uint8)
    full[: len(palette)] = palette
    return full


def _painted(ids: UInt8Array, palette: UInt8Array) -> Image.Image:
    """Image of mode RGB: each pixel its class's colour, UNSELECTED ones black."""
    highest = int(ids.max())
    image = Image.fromarray(ids)
    image.putpalette(_colours(highest, palette, UNSELECTED if highest == UNSELECTED else None).tobytes())
    return image.convert("RGB")


def _check_size(ids: UInt8Array, kind: str) -> None:
    height, width = ids.shape
    if max(height, width) > _LONGEST[kind]:
        raise NotAcceptable(
            f"the picture is {width}x{height}, a {kind} is at most {_LONGEST[kind]} pixels wide and high. "
            "Accept image/png or application/json."
        )


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
