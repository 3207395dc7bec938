"""What one response contains: masks, overlays, classes."""

from dataclasses import dataclass
from typing import Final

from service.imaging.tile_plan import TileMode

INCLUDE: Final = ("overlay", "class_masks", "class_overlays")
MASKS: Final = ("png", "rle", "polygons", "none")
OVERLAY_ALPHA: Final = 0.5


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """The parsed query parameters of one request; http/query_params.py describes each.

    classes: names or ids as requested; empty for all.
    """

    include: frozenset[str] = frozenset()
    masks: str = "png"
    classes: tuple[str, ...] = ()
    alpha: float = OVERLAY_ALPHA
    confidence: bool = False
    tile: TileMode = "auto"
