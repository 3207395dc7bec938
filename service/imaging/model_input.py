"""One image as the tensors that the engine takes, and their class maps as one map of the image's own size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.imaging.decode import check_array, decode, decode_downscaled
from service.imaging.letterbox import letterbox, min_decode_size, unletterbox
from service.imaging.tiling import TiledInput
from service.types import Size, UInt8Array


class ModelInput(Protocol):
    """One image as `count` tensors of one bucket."""

    count: int

    def tensor(self, index: int) -> UInt8Array:
        """(H, W, 3) uint8 RGB, C-contiguous."""
        ...

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """(H, W) uint8 for each tensor, in order -> (height, width) uint8 at the image's own size."""
        ...


class SingleInput:
    """The whole image as one tensor, resized and padded."""

    count = 1

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size], original: Size | None = None) -> None:
        """See `letterbox`."""
        self.prepared = letterbox(pixels, buckets, original)

    def tensor(self, _index: int) -> UInt8Array:
        """See ModelInput."""
        return self.prepared.pixels

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """See ModelInput."""
        (values,) = maps
        return unletterbox(values, self.prepared)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of one image.

    max_pixels: width times height. max_tiles: with tile=true.
    reserve: called with the number of pixels before memory is allocated for them; may raise a RequestError.
    """

    max_pixels: int
    max_tiles: int = 1
    reserve: Callable[[int], None] = lambda pixels: None


def open_image(
    image: bytes | UInt8Array,
    buckets: Sequence[Size],
    limits: ImageLimits,
    *,
    tile: bool = False,
    with_pixels: bool = False,
) -> tuple[UInt8Array | None, ModelInput]:
    """Decode an image and make the model's input from it.

    image: a file's bytes, or (h, w, 3) uint8 RGB. tile: use tiles, if the image needs more than one.
    Returns its pixels, (h, w, 3) uint8 RGB, or None without `with_pixels`, and the input. Raises RequestError.
    """
    if isinstance(image, bytes) and not tile:
        return _open_downscaled(image, buckets, limits, with_pixels)
    if isinstance(image, bytes):
        pixels = decode(image, limits.max_pixels, limits.reserve)
    else:
        pixels = check_array(image, limits.max_pixels, limits.reserve)
    tiled = TiledInput(pixels, buckets, limits.max_tiles) if tile else None
    model_input = tiled if tiled is not None and tiled.count > 1 else SingleInput(pixels, buckets)
    return pixels if with_pixels else None, model_input


def _open_downscaled(
    data: bytes, buckets: Sequence[Size], limits: ImageLimits, with_pixels: bool
) -> tuple[UInt8Array | None, ModelInput]:
    """The model's input does not depend on `with_pixels`, so masks do not depend on the response's format."""
    pixels, original = decode_downscaled(
        data, limits.max_pixels, limits.reserve, lambda size: min_decode_size(size, buckets)
    )
    model_input = SingleInput(pixels, buckets, original)
    if with_pixels and pixels.shape[:2] != original:
        pixels = decode(data, limits.max_pixels)  # a second time: cheaper than resizing the full-size pixels
    return pixels if with_pixels else None, model_input
