"""What one response contains: its masks, its overlays, its classes."""

from dataclasses import dataclass
from typing import Final

INCLUDE: Final = ("overlay", "class_masks", "class_overlays")
MASKS: Final = ("png", "rle", "polygons", "none")
OVERLAY_ALPHA: Final = 0.5


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Query parameters, parsed; see PARAMETERS. classes: as asked for, empty for all."""

    include: frozenset[str] = frozenset()
    masks: str = "png"
    classes: tuple[str, ...] = ()
    alpha: float = OVERLAY_ALPHA
    confidence: bool = False
    tile: bool = False
