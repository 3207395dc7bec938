"""Resize and pad an image into a bucket, and bring the class map back to the image's own size.

Both directions use half-pixel centres: pixel i of n covers [i/n, (i+1)/n) of the image, so edges don't move.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from service.imaging.enlarge import enlarge_class_map, enlarge_nearest
from service.types import PreparedImage, Size, UInt8Array

_MIN_ENLARGEMENT: Final = 1.05  # below it, enlarging only blurs
_CACHED_SIZES: Final = 256  # each image asks three times for its bucket, and clients mostly send images of one size


def letterbox(pixels: UInt8Array, buckets: Sequence[Size], original: Size | None = None) -> PreparedImage:
    """Resize an image, keeping its aspect ratio, and pad it to the bucket in which it keeps most of its pixels.

    pixels: (h, w, 3) uint8 RGB of any size. buckets: (H, W), best first.
    original: the image's own size, where the decoder has already reduced it; see `min_decode_size`.
    Small images are enlarged, since the network was trained on objects at the bucket's scale. An image that nearly
    fills the bucket keeps its pixels: interpolating all of them for a few more would only blur it.
    """
    original = original or (pixels.shape[0], pixels.shape[1])
    bucket = choose_bucket(original, buckets)
    content = fit(original, bucket)
    return PreparedImage(pad(resize(pixels, content), bucket), content=content, original=original)


def unletterbox(values: UInt8Array, prepared: PreparedImage) -> UInt8Array:
    """Cut the padding off and resize to the image's own size by nearest neighbour.

    values: (H, W) uint8 at the bucket's size, such as confidence.
    Returns (height, width) uint8 of `prepared.original`, C-contiguous.
    """
    height, width = prepared.content
    return enlarge_nearest(values[:height, :width], prepared.original)


def unletterbox_ids(ids: UInt8Array, prepared: PreparedImage) -> UInt8Array:
    """Like `unletterbox`, for class ids: the edges between classes are smooth; see `enlarge_class_map`."""
    height, width = prepared.content
    return enlarge_class_map(ids[:height, :width], prepared.original)


def min_decode_size(size: Size, buckets: Sequence[Size]) -> Size:
    """The smallest (height, width) to decode an image at so that its letterboxed pixels look the same.

    Twice what is left in the bucket: the last halving is then done by the better filter of `letterbox`.
    """
    height, width = fit(size, choose_bucket(size, buckets))
    return 2 * height, 2 * width


def choose_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket that keeps most pixels of an image; among equals the one it fills best, then the first."""
    return _choose_bucket(size, tuple(buckets))


@lru_cache(_CACHED_SIZES)
def _choose_bucket(size: Size, buckets: tuple[Size, ...]) -> Size:
    def score(bucket: Size) -> tuple[int, float]:
        height, width = fit(size, bucket)
        kept = min(height * width, size[0] * size[1])
        return kept, height * width / (bucket[0] * bucket[1])

    return max(buckets, key=score)


def fit(size: Size, bucket: Size) -> Size:
    """The largest (height, width) of this aspect ratio inside the bucket, at least 1 each; `size` if it nearly fits."""
    scale = min(bucket[0] / size[0], bucket[1] / size[1])
    if 1 <= scale < _MIN_ENLARGEMENT:
        return size
    height, width = (max(1, min(round(n * scale), limit)) for n, limit in zip(size, bucket, strict=True))
    return height, width


def resize(pixels: UInt8Array, size: Size) -> UInt8Array:
    """Resize (h, w, 3) uint8 to `size`, (height, width), antialiased."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    # Pillow's BILINEAR widens its filter when it reduces, so it is antialiased.
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def pad(pixels: UInt8Array, bucket: Size) -> UInt8Array:
    """Pad (h, w, 3) uint8 on the right and at the bottom to (H, W, 3) of the bucket; C-contiguous.

    The last row and column are repeated: at a flat margin the network would see an edge that the scene lacks.
    """
    height, width = pixels.shape[:2]
    if (height, width) == bucket:
        return np.ascontiguousarray(pixels)
    out = np.empty((*bucket, 3), dtype=np.uint8)
    out[:height, :width] = pixels
    out[:height, width:] = pixels[:, -1:]
    out[height:] = out[height - 1]
    return out
