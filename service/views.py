"""What the engine gets to see of a picture, and how its answers become one map of the picture's own size."""

from collections.abc import Sequence
from typing import Protocol

from service.contracts import UInt8Array
from service.prepare import Size, prepare, restore
from service.tiles import Tiled


class View(Protocol):
    """One picture as `count` tensors of one bucket."""

    count: int

    def tensor(self, index: int) -> UInt8Array:
        """(H, W, 3) uint8 RGB, C-contiguous."""
        ...

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """(H, W) uint8 for each tensor, in order -> (height, width) uint8 at the picture's own size."""
        ...


class Whole:
    """The whole picture at once, resized and padded."""

    count = 1

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size]) -> None:
        self._prepared = prepare(pixels, buckets)

    def tensor(self, _index: int) -> UInt8Array:
        """See View."""
        return self._prepared.pixels

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """See View."""
        (values,) = maps
        return restore(values, self._prepared).ids


def view(pixels: UInt8Array, buckets: Sequence[Size], *, tile: bool, max_tiles: int) -> View:
    """Look at a picture, (h, w, 3) uint8 RGB, as a whole, or through tiles if asked and it takes more than one.

    Raises TooManyPixels when it takes more than `max_tiles`.
    """
    tiled = Tiled(pixels, buckets, max_tiles) if tile else None
    return tiled if tiled is not None and tiled.count > 1 else Whole(pixels, buckets)
