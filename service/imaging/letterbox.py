"""Lay a picture into a shape bucket, and bring the class map back to the picture's own size.

Both ways use half-pixel centres: pixel i of n covers [i/n, (i+1)/n) of the picture, so edges don't move.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.types import ClassMap, PreparedImage, UInt8Array

Size = tuple[int, int]  # (height, width)
NEARLY: Final = 1.05  # a picture is not enlarged by less


def prepare(pixels: UInt8Array, buckets: Sequence[Size], original: Size | None = None) -> PreparedImage:
    """Fit a picture into the bucket in which it keeps most of its pixels.

    pixels: (h, w, 3) uint8 RGB of any size. buckets: (H, W), best first.
    original: the picture's size, where the decoder has shrunk it already; see `enough`.
    The aspect is kept; small pictures are enlarged, since the network knows things at the bucket's scale. One that
    nearly fills the bucket keeps its pixels: to interpolate all of them for a few more would only blur it.
    """
    original = original or (pixels.shape[0], pixels.shape[1])
    bucket = choose_bucket(original, buckets)
    content = fit(original, bucket)
    return PreparedImage(pad(_resize(pixels, content), bucket), content=content, original=original)


def restore(ids: UInt8Array, prepared: PreparedImage) -> ClassMap:
    """Cut the padding off and go back to the picture's size by nearest neighbour.

    ids: (H, W) uint8 class ids in the bucket, or any other value a pixel. Returns the map at `prepared.original`.
    """
    height, width = prepared.content
    inside = ids[:height, :width]
    if prepared.content == prepared.original:
        return ClassMap(np.ascontiguousarray(inside))
    rows, columns = (_nearest(n, of) for n, of in zip(prepared.original, prepared.content, strict=True))
    return ClassMap(inside.take(rows, axis=0).take(columns, axis=1))


def enough(size: Size, buckets: Sequence[Size]) -> Size:
    """How many pixels of a picture a decoder must give, so that what `prepare` makes of them looks the same.

    Twice what will be left: so the last halving at least is done by the better filter.
    """
    height, width = fit(size, choose_bucket(size, buckets))
    return 2 * height, 2 * width


def choose_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket that keeps most pixels of a picture; among equals the one it fills best, then the first."""

    def merit(bucket: Size) -> tuple[int, float]:
        height, width = fit(size, bucket)
        kept = min(height * width, size[0] * size[1])
        return kept, height * width / (bucket[0] * bucket[1])

    return max(buckets, key=merit)


def fit(size: Size, bucket: Size) -> Size:
    """The largest (height, width) of this aspect inside the bucket, each at least 1; `size` if that is nearly it."""
    scale = min(bucket[0] / size[0], bucket[1] / size[1])
    if 1 <= scale < NEARLY:
        return size
    height, width = (max(1, min(round(n * scale), limit)) for n, limit in zip(size, bucket, strict=True))
    return height, width


def _nearest(length: int, of: int) -> npt.NDArray[np.intp]:
    """Which of `of` pixels lies under the centre of each of `length`; integers, so that no rounding moves an edge."""
    return (2 * np.arange(length) + 1) * of // (2 * length)


def _resize(pixels: UInt8Array, size: Size) -> UInt8Array:
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    # Pillow's BILINEAR widens its filter when it shrinks: this is the antialiased kind.
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def pad(pixels: UInt8Array, bucket: Size) -> UInt8Array:
    """Lay pixels, (h, w, 3) uint8, into the top left of a bucket that holds them; C-contiguous.

    The last row and column are repeated: against a flat margin the network would see an edge that the street lacks.
    """
    height, width = pixels.shape[:2]
    if (height, width) == bucket:
        return np.ascontiguousarray(pixels)
    out = np.empty((*bucket, 3), dtype=np.uint8)
    out[:height, :width] = pixels
    out[:height, width:] = pixels[:, -1:]
    out[height:] = out[height - 1]
    return out
