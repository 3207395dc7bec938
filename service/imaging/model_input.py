"""What the engine gets to see of a picture, and how its answers become one map of the picture's own size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.imaging.decode import accept, decode, decode_downscaled
from service.imaging.letterbox import Size, enough, prepare, restore
from service.imaging.tiling import TiledInput
from service.types import UInt8Array


class ModelInput(Protocol):
    """One picture as `count` tensors of one bucket."""

    count: int

    def tensor(self, index: int) -> UInt8Array:
        """(H, W, 3) uint8 RGB, C-contiguous."""
        ...

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """(H, W) uint8 for each tensor, in order -> (height, width) uint8 at the picture's own size."""
        ...


class SingleInput:
    """The whole picture at once, resized and padded."""

    count = 1

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size], original: Size | None = None) -> None:
        self.prepared = prepare(pixels, buckets, original)

    def tensor(self, _index: int) -> UInt8Array:
        """See View."""
        return self.prepared.pixels

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """See View."""
        (values,) = maps
        return restore(values, self.prepared).ids


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """max_pixels: of one picture. max_tiles: of one picture. take: told the pixels before memory is spent on them."""

    max_pixels: int
    max_tiles: int = 1
    take: Callable[[int], None] = lambda pixels: None


def open_image(
    picture: bytes | UInt8Array,
    buckets: Sequence[Size],
    limits: ImageLimits,
    *,
    tile: bool = False,
    with_pixels: bool = False,
) -> tuple[UInt8Array | None, ModelInput]:
    """Read a picture and look at it.

    picture: a file's bytes, or (h, w, 3) uint8 RGB. tile: through tiles, where it takes more than one.
    Returns its pixels, (h, w, 3) uint8 RGB, if asked for, and the view. Raises RequestError.
    """
    if isinstance(picture, bytes) and not tile:
        return _open_shrunk(picture, buckets, limits, with_pixels)
    if isinstance(picture, bytes):
        pixels = decode(picture, limits.max_pixels, limits.take)
    else:
        pixels = accept(picture, limits.max_pixels, limits.take)
    tiled = TiledInput(pixels, buckets, limits.max_tiles) if tile else None
    seen = tiled if tiled is not None and tiled.count > 1 else SingleInput(pixels, buckets)
    return pixels if with_pixels else None, seen


def _open_shrunk(
    data: bytes, buckets: Sequence[Size], limits: ImageLimits, with_pixels: bool
) -> tuple[UInt8Array | None, ModelInput]:
    """The network sees the same whether or not anybody else wants to: masks never depend on the answer's form."""
    pixels, original = decode_downscaled(data, limits.max_pixels, limits.take, lambda size: enough(size, buckets))
    seen = SingleInput(pixels, buckets, original)
    if with_pixels and pixels.shape[:2] != original:
        pixels = decode(data, limits.max_pixels)  # again: a shrunk picture is had for less than shrinking costs
    return pixels if with_pixels else None, seen
