"""Tiles for images much larger than the buckets: cut at full resolution, then merged into one class map.

All tiles of an image have one bucket's size, so they can share batches. Neighbours overlap by a third or more, and each
pixel is taken from the tile whose centre is nearest: at its border a tile lacks context.
Class ids can't be averaged over the overlap, and probabilities of all classes would be a hundred times the bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.errors import ImageTooLarge
from service.imaging.letterbox import pad
from service.types import Size, UInt8Array


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in pixels of the image.

    start, stop: the tile. first, last: the part of it that goes into the merged map, first <= i < last.
    """

    start: int
    stop: int
    first: int
    last: int

    @property
    def in_image(self) -> slice:
        """The part that goes into the merged map, in pixels of the image."""
        return slice(self.first, self.last)

    @property
    def in_tile(self) -> slice:
        """The same part, in pixels of the tile."""
        return slice(self.first - self.start, self.last - self.start)


def spans(length: int, window: int) -> list[Span]:
    """Cover `length` pixels with windows of `window`, evenly spread, each overlapping the next by at least a third.

    One span if the image is shorter than the window. Overlaps are split in the middle.
    """
    count = span_count(length, window)
    starts = [i * (length - window) // (count - 1) for i in range(count)] if count > 1 else [0]
    splits = [(after + before + window) // 2 for before, after in pairwise(starts)]
    edges = [0, *splits, length]
    return [
        Span(start, min(start + window, length), first, last)
        for start, (first, last) in zip(starts, pairwise(edges), strict=True)
    ]


def span_count(length: int, window: int) -> int:
    """len(spans(...)) without making them: an image may be 40 million pixels wide and 1 high."""
    stride = max(1, window * 2 // 3)
    return 1 + max(0, -(-(length - window) // stride))


class TiledInput:
    """An image as tiles at full resolution; see model_input.ModelInput."""

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size], max_tiles: int) -> None:
        """pixels: (h, w, 3) uint8 RGB. buckets: the one that needs the fewest tiles is used, the first among equals.

        Raises ImageTooLarge when it needs more than `max_tiles`.
        """
        self._pixels, self._size = pixels, (pixels.shape[0], pixels.shape[1])
        self._bucket = min(buckets, key=self._tiles_of)
        self.count = self._tiles_of(self._bucket)
        if self.count > max_tiles:
            (height, width), (bucket_height, bucket_width) = self._size, self._bucket
            raise ImageTooLarge(
                f"Image of {width:,} x {height:,} pixels needs {self.count:,} tiles of "
                f"{bucket_width} x {bucket_height}, limit {max_tiles:,} (ALIGNSEG_MAX_TILES). Remove tile=true or "
                "scale the image down."
            )
        rows, columns = (spans(*axis) for axis in zip(self._size, self._bucket, strict=True))
        self._tiles = [(row, column) for row in rows for column in columns]

    def tensor(self, index: int) -> UInt8Array:
        """Tile `index`: (H, W, 3) uint8 RGB, C-contiguous, of the bucket's size."""
        rows, columns = self._tiles[index]
        return pad(self._pixels[rows.start : rows.stop, columns.start : columns.stop], self._bucket)

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """Merge the maps of all tiles, (H, W) uint8 each, into one of the image's size."""
        out = np.empty(self._size, dtype=np.uint8)
        for (rows, columns), tile_map in zip(self._tiles, maps, strict=True):
            out[rows.in_image, columns.in_image] = tile_map[rows.in_tile, columns.in_tile]
        return out

    def _tiles_of(self, bucket: Size) -> int:
        rows, columns = (span_count(*axis) for axis in zip(self._size, bucket, strict=True))
        return rows * columns
