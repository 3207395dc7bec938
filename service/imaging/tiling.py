"""A sliding window over pictures much larger than the profile: tiles at native resolution, put together again.

All tiles of a picture share one bucket, so that they share batches. Neighbours overlap by a third or more, and each
pixel is taken from the tile in whose middle it lies most: near its rim a tile has not seen what lies beyond.
The ids of overlapping tiles can't be averaged, and probabilities of all classes would be a hundred times the bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.errors import ImageTooLarge
from service.imaging.letterbox import Size, pad
from service.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in pixels of the picture.

    start, stop: what the tile sees. first, last: the part of it that the tile decides, first <= i < last.
    """

    start: int
    stop: int
    first: int
    last: int

    @property
    def decided(self) -> slice:
        """The pixels of the picture that this tile decides."""
        return slice(self.first, self.last)

    @property
    def inner(self) -> slice:
        """The same pixels, counted within the tile."""
        return slice(self.first - self.start, self.last - self.start)


def spans(length: int, window: int) -> list[Span]:
    """Cover `length` pixels with windows of `window`, evenly spread, each overlapping the next by at least a third.

    One span, shorter than the window, when the picture is. What neighbours both see is parted in the middle.
    """
    count = how_many(length, window)
    starts = [i * (length - window) // (count - 1) for i in range(count)] if count > 1 else [0]
    parts = [(after + before + window) // 2 for before, after in pairwise(starts)]
    edges = [0, *parts, length]
    return [
        Span(start, min(start + window, length), first, last)
        for start, (first, last) in zip(starts, pairwise(edges), strict=True)
    ]


def how_many(length: int, window: int) -> int:
    """The number of spans; counted, not made: a picture may be 40 million pixels wide and 1 high."""
    stride = max(1, window * 2 // 3)
    return 1 + max(0, -(-(length - window) // stride))


class TiledInput:
    """A picture seen through tiles; see views.View."""

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size], max_tiles: int) -> None:
        """pixels: (h, w, 3) uint8 RGB. buckets: the one with the fewest tiles is taken, the first among equals.

        Raises ImageTooLarge when that are more than `max_tiles`.
        """
        self._pixels, self._size = pixels, (pixels.shape[0], pixels.shape[1])
        self._bucket = min(buckets, key=self._tiles_of)
        self.count = self._tiles_of(self._bucket)
        if self.count > max_tiles:
            (height, width), (bucket_height, bucket_width) = self._size, self._bucket
            raise ImageTooLarge(
                f"the picture is {width}x{height}, {self.count} tiles of {bucket_width}x{bucket_height}; at most "
                f"{max_tiles} are taken (ALIGNSEG_MAX_TILES). Leave tile=true out, or scale the picture down."
            )
        rows, columns = (spans(*axis) for axis in zip(self._size, self._bucket, strict=True))
        self._tiles = [(row, column) for row in rows for column in columns]

    def tensor(self, index: int) -> UInt8Array:
        """Tile `index`: (H, W, 3) uint8 RGB, C-contiguous, of the bucket's size."""
        rows, columns = self._tiles[index]
        return pad(self._pixels[rows.start : rows.stop, columns.start : columns.stop], self._bucket)

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """The maps of all tiles, (H, W) uint8 each, as one of the picture's size."""
        out = np.empty(self._size, dtype=np.uint8)
        for (rows, columns), seen in zip(self._tiles, maps, strict=True):
            out[rows.decided, columns.decided] = seen[rows.inner, columns.inner]
        return out

    def _tiles_of(self, bucket: Size) -> int:
        rows, columns = (how_many(*axis) for axis in zip(self._size, bucket, strict=True))
        return rows * columns
