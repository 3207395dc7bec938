"""Vector fields as colours: the colour wheel of the Middlebury flow benchmark (Baker et al., IJCV 2011)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]

# The corners of the wheel, and how many of its 55 steps lie between each and the next: fewer where hues look alike.
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
_STEPS = (15, 6, 4, 11, 13, 6)


def flow_to_rgb(flow: Floats, full: float) -> Bytes:
    """Colours of a vector field, uint8 (H, W, 3) RGB.

    flow: (2, H, W) as (x, y), x to the right, y down. full: the length of a vector with full colour.
    The hue is the direction (red right, yellow down, blue up), white is 0. Vectors longer than `full` are darkened, as
    in the benchmark's code.
    """
    x, y = flow
    turn = (np.arctan2(-y, -x) / np.pi + 1) / 2 * sum(_STEPS)
    knots = np.cumsum((0, *_STEPS))
    hue = np.stack([np.interp(turn, knots, [corner[i] for corner in _CORNERS]) for i in range(3)], axis=-1)
    length = (np.hypot(x, y) / max(full, 1e-12))[..., None]
    rgb: Bytes = np.where(length <= 1, 255 - length * (255 - hue), 0.75 * hue).round().astype(np.uint8)
    return rgb


def wheel(side: int) -> Bytes:
    """The legend, uint8 (side, side, 3): all directions and lengths up to full; white outside the circle."""
    axis = np.linspace(-1, 1, side)
    flow = np.stack(np.meshgrid(axis, axis))
    inside = np.hypot(*flow)[..., None] <= 1
    return np.where(inside, flow_to_rgb(flow, 1.0), 255).astype(np.uint8)
