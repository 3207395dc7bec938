"""The block sizes that TensorRT times the kernels with, and the grid of a launch. Imports no framework."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["planar", "channels_last"]


@dataclass(frozen=True, slots=True)
class Tactic:
    """One Triton program computes block_p pixels by block_c channels with `warps` warps of 32 threads."""

    block_p: int
    block_c: int
    warps: int

    def grid(self, pixels: int, channels: int, images: int) -> tuple[int, int, int]:
        """Programs along pixels, channels and images."""
        return -(-pixels // self.block_p), -(-channels // self.block_c), images


# Channels last: a warp reads 64 neighbouring channels of a pixel at once, so a tile has many channels.
# Planar: neighbouring threads read neighbouring pixels, so a tile has many pixels and few channels.
TACTICS: dict[Layout, tuple[Tactic, ...]] = {
    "channels_last": (Tactic(16, 64, 4), Tactic(32, 64, 4), Tactic(8, 128, 4), Tactic(32, 32, 4), Tactic(16, 64, 2)),
    "planar": (Tactic(128, 4, 4), Tactic(128, 8, 4), Tactic(256, 4, 8), Tactic(64, 8, 2)),
}


def tactics(layout: Layout, channels: int) -> tuple[Tactic, ...]:
    """The tactics whose tile is more than half full at this number of channels; at least one."""
    fitting = tuple(t for t in TACTICS[layout] if t.block_c < 2 * channels)
    return fitting or (min(TACTICS[layout], key=lambda t: t.block_c),)


def numbered(layout: Layout, channels: int) -> dict[int, Tactic]:
    """The same by number, from 1: TensorRT reserves 0, and a number must mean the same tactic at every call."""
    return {TACTICS[layout].index(tactic) + 1: tactic for tactic in tactics(layout, channels)}
