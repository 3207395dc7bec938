"""Tiles for images that one bucket shows too small: cut from the image, then merged into one class map.

All tiles of an image have one bucket's size, so they can share batches. Neighbours overlap by a third or more, and each
pixel is taken from the tile whose centre is nearest: at its border a tile lacks context.
Class ids can't be averaged over the overlap, and probabilities of all classes would be a hundred times the bytes.
`tile_plan.py` decides how large the image is and which bucket is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.imaging.enlarge import enlarge_class_map, enlarge_nearest
from service.imaging.letterbox import pad, resize
from service.imaging.tile_plan import TilePlan, span_count
from service.types import UInt8Array


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


class TileMerger:
    """Merges the maps of an image's tiles into one. Knows sizes only, so it works where the pixels are not."""

    def __init__(self, plan: TilePlan) -> None:
        self._plan = plan
        rows, columns = (spans(*axis) for axis in zip(plan.content, plan.bucket, strict=True))
        self.tiles = [(row, column) for row in rows for column in columns]

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """Merge the maps of all tiles, (H, W) uint8 each, into one of the image's size."""
        return enlarge_nearest(self._merge(maps), self._plan.original)

    def assemble_ids(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """The same for class ids: the edges between classes are smooth."""
        return enlarge_class_map(self._merge(maps), self._plan.original)

    def _merge(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        out = np.empty(self._plan.content, dtype=np.uint8)
        for (rows, columns), tile_map in zip(self.tiles, maps, strict=True):
            out[rows.in_image, columns.in_image] = tile_map[rows.in_tile, columns.in_tile]
        return out


class TiledInput(TileMerger):
    """An image as tiles; see model_input.ModelInput."""

    def __init__(self, pixels: UInt8Array, plan: TilePlan) -> None:
        """pixels: (h, w, 3) uint8 RGB of any size; they are resized to `plan.content`."""
        super().__init__(plan)
        self.plan = plan
        self.count, self.input_size, self.original = plan.count, plan.content, plan.original
        self._pixels = resize(pixels, plan.content)

    def tensor(self, index: int) -> UInt8Array:
        """Tile `index`: (H, W, 3) uint8 RGB, C-contiguous, of the bucket's size."""
        rows, columns = self.tiles[index]
        return pad(self._pixels[rows.start : rows.stop, columns.start : columns.stop], self.plan.bucket)

    def advice(self, tiles: int) -> str:
        """See TilePlan."""
        return self.plan.advice(tiles)
