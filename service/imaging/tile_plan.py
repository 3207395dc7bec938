"""How large the model sees an image: whole in one bucket, or in tiles. Sizes only, no pixels.

- false: whole, however little of a bucket it fills.
- auto: the same, but an image that would be scaled down until its shorter side fills less than half of the bucket is
  cut into tiles at the bucket's full height (a tall image: at its full width). At most 16 tiles: at an aspect ratio of
  more than about 20, the shorter side fills less.
- height: the shorter side fills the bucket, the longer one is cut into tiles. Never enlarged.
- true: tiles at the image's native resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from service.errors import ImageTooLarge
from service.imaging.letterbox import choose_bucket, fit
from service.types import Size

TileMode = Literal["auto", "false", "height", "true"]
MIN_SHARE: Final = 0.5  # of the bucket's height that auto fills
AUTO_MAX_TILES: Final = 16


@dataclass(frozen=True, slots=True)
class TilePlan:
    """An image as tiles of one bucket.

    original: (height, width) of the image. content: the size at which it is cut. bucket: (H, W) of a tile.
    buckets: of the model. mode: as requested.
    """

    original: Size
    content: Size
    bucket: Size
    buckets: Sequence[Size]
    mode: TileMode

    @property
    def count(self) -> int:
        """The number of tiles."""
        return _tiles(self.content, self.bucket)

    def advice(self, tiles: int) -> str:
        """What to do if only this many tiles can be computed, as a sentence."""
        if self.mode != "true":
            return "Use tile=false, or crop the image."
        less = shorter_side(self.original, self.buckets)
        options = []
        if less is not None and less.count <= tiles:
            options.append(f"use tile=height ({less.count} {'tile' if less.count == 1 else 'tiles'})")
        if tiles > 1:
            height, width = _reduced(self.original, self.bucket, tiles)
            count = _tiles((height, width), self.bucket)
            options.append(f"scale the image down to {width:,} x {height:,} pixels ({count} tiles)")
        options.append("remove tile=true")
        text = options[0] if len(options) == 1 else f"{', '.join(options[:-1])}, or {options[-1]}"
        return f"{text[0].upper()}{text[1:]}."


def plan_tiles(size: Size, buckets: Sequence[Size], mode: TileMode, max_tiles: int) -> TilePlan | None:
    """The tiles of an image of this (height, width); None if it is seen whole.

    Raises ImageTooLarge for more than `max_tiles`, which auto never needs.
    """
    if mode == "false":
        return None
    if mode == "auto":
        return _panorama(size, buckets, min(AUTO_MAX_TILES, max_tiles))
    plan = native(size, buckets) if mode == "true" else shorter_side(size, buckets)
    if plan.count > max_tiles:
        (height, width), (bucket_height, bucket_width) = plan.content, plan.bucket
        raise ImageTooLarge(
            f"Image of {width:,} x {height:,} pixels needs {plan.count:,} tiles of {bucket_width} x {bucket_height}, "
            f"limit {max_tiles:,} (ALIGNSEG_MAX_TILES). {plan.advice(max_tiles)}"
        )
    return plan if plan.count > 1 else None


def native(size: Size, buckets: Sequence[Size]) -> TilePlan:
    """Tiles at full resolution, of the bucket that needs the fewest; the first among equals."""
    bucket = min(buckets, key=lambda bucket: _tiles(size, bucket))
    return TilePlan(size, size, bucket, buckets, "true")


def shorter_side(size: Size, buckets: Sequence[Size]) -> TilePlan:
    """One row or column of tiles, at the largest size at which the shorter side fits in a bucket."""
    plans = [_row_of_tiles(size, bucket, buckets) for bucket in buckets]
    return max(plans, key=lambda plan: (min(plan.content), -plan.count))


def _panorama(size: Size, buckets: Sequence[Size], max_tiles: int) -> TilePlan | None:
    """Tiles, if the image would fill less than MIN_SHARE of the bucket: the fewest that fill most of it."""
    short = _short_axis(size)
    bucket = choose_bucket(size, buckets)
    whole = fit(size, bucket)[short]
    if whole >= min(size[short], MIN_SHARE * bucket[short]):
        return None
    plans = [_row_of_tiles(size, bucket, buckets, max_tiles) for bucket in buckets]
    plan = max(plans, key=lambda plan: (plan.content[short] / plan.bucket[short], -plan.count))
    return replace(plan, mode="auto") if plan.content[short] > whole and plan.count > 1 else None


def _row_of_tiles(size: Size, bucket: Size, buckets: Sequence[Size], max_tiles: int | None = None) -> TilePlan:
    short = _short_axis(size)
    scale = min(1.0, bucket[short] / size[short])
    if max_tiles is not None:
        longest = bucket[1 - short] + (max_tiles - 1) * _stride(bucket[1 - short])
        scale = min(scale, longest / size[1 - short])
    height, width = (max(1, int(n * scale + 1e-6)) for n in size)
    return TilePlan(size, (height, width), bucket, buckets, "height")


def _short_axis(size: Size) -> int:
    return 0 if size[0] <= size[1] else 1


def _reduced(size: Size, bucket: Size, max_tiles: int) -> Size:
    """The largest (height, width) of this aspect ratio, in hundredths of the size, with at most `max_tiles` tiles."""
    sizes = ((max(1, size[0] * percent // 100), max(1, size[1] * percent // 100)) for percent in range(100, 0, -1))
    return next((one for one in sizes if _tiles(one, bucket) <= max_tiles), fit(size, bucket))


def _tiles(size: Size, bucket: Size) -> int:
    rows, columns = (span_count(*axis) for axis in zip(size, bucket, strict=True))
    return rows * columns


def span_count(length: int, window: int) -> int:
    """The number of windows that cover `length` and overlap by at least a third; see `tiling.spans`."""
    return 1 + max(0, -(-(length - window) // _stride(window)))


def _stride(window: int) -> int:
    return max(1, window * 2 // 3)
