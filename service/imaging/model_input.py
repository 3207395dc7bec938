"""One image as the tensors that the engine takes, and their class maps as one map of the image's own size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.imaging.decode import check_array, decode, decode_downscaled
from service.imaging.letterbox import letterbox, min_decode_size, unletterbox, unletterbox_ids
from service.imaging.tile_plan import TileMode, plan_tiles
from service.imaging.tiling import TiledInput
from service.types import Size, UInt8Array


class ModelInput(Protocol):
    """One image as `count` tensors of one bucket.

    input_size: (height, width) of the image as the model sees it. original: of the image itself.
    """

    count: int
    input_size: Size
    original: Size

    def tensor(self, index: int) -> UInt8Array:
        """(H, W, 3) uint8 RGB, C-contiguous."""
        ...

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """(H, W) uint8 for each tensor, in order -> (height, width) uint8 at the image's own size."""
        ...

    def assemble_ids(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """The same for class ids: the edges between classes are smooth."""
        ...

    def advice(self, tiles: int) -> str:
        """What the client can do if only this many tensors can be computed, as a sentence."""
        ...


class SingleInput:
    """The whole image as one tensor, resized and padded."""

    count = 1

    def __init__(self, pixels: UInt8Array, buckets: Sequence[Size], original: Size | None = None) -> None:
        """See `letterbox`."""
        self.prepared = letterbox(pixels, buckets, original)
        self.input_size, self.original = self.prepared.content, self.prepared.original

    def tensor(self, _index: int) -> UInt8Array:
        """See ModelInput."""
        return self.prepared.pixels

    def assemble(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """See ModelInput."""
        (values,) = maps
        return unletterbox(values, self.prepared)

    def assemble_ids(self, maps: Sequence[UInt8Array]) -> UInt8Array:
        """See ModelInput."""
        (ids,) = maps
        return unletterbox_ids(ids, self.prepared)

    def advice(self, _tiles: int) -> str:
        """See ModelInput."""
        return "Scale the image down."


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of one image.

    max_pixels: width times height. max_tiles: of one image in tiles.
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
    tile: TileMode = "false",
    with_pixels: bool = False,
) -> tuple[UInt8Array | None, ModelInput]:
    """Decode an image and make the model's input from it.

    image: a file's bytes, or (h, w, 3) uint8 RGB. tile: see tile_plan.py.
    Returns its pixels, (h, w, 3) uint8 RGB, or None without `with_pixels`, and the input. Raises RequestError.
    The input does not depend on `with_pixels`, so masks do not depend on the response's format.
    """
    if isinstance(image, bytes):

        def min_size(size: Size) -> Size:
            plan = plan_tiles(size, buckets, tile, limits.max_tiles)
            return min_decode_size(size, buckets) if plan is None else (2 * plan.content[0], 2 * plan.content[1])

        pixels, original = decode_downscaled(image, limits.max_pixels, limits.reserve, min_size)
    else:
        pixels = check_array(image, limits.max_pixels, limits.reserve)
        original = pixels.shape[0], pixels.shape[1]
    plan = plan_tiles(original, buckets, tile, limits.max_tiles)
    model_input = SingleInput(pixels, buckets, original) if plan is None else TiledInput(pixels, plan)
    if with_pixels and isinstance(image, bytes) and pixels.shape[:2] != original:
        pixels = decode(image, limits.max_pixels)  # a second time: cheaper than resizing the full-size pixels
    return pixels if with_pixels else None, model_input
