"""Block sizes that the kernels are tuned over, and what a launch of one needs. No PyTorch, no TensorRT, no Triton."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["planar", "channels_last"]


@dataclass(frozen=True, slots=True)
class Tactic:
    """A program works on block_p pixels by block_c channels with `warps` warps of 32 threads."""

    block_p: int
    block_c: int
    warps: int

    def grid(self, pixels: int, channels: int, pictures: int) -> tuple[int, int, int]:
        """Programs along pixels, channels and pictures."""
        return -(-pixels // self.block_p), -(-channels // self.block_c), pictures


# Channels last: a warp reads 64 neighbouring channels of a pixel at once, so a tile is wide in channels.
# Planar: neighbouring threads take neighbouring pixels, so a tile is long in pixels and loops over few channels.
TACTICS: dict[Layout, tuple[Tactic, ...]] = {
    "channels_last": (Tactic(16, 64, 4), Tactic(32, 64, 4), Tactic(8, 128, 4), Tactic(32, 32, 4), Tactic(16, 64, 2)),
    "planar": (Tactic(128, 4, 4), Tactic(128, 8, 4), Tactic(256, 4, 8), Tactic(64, 8, 2)),
}


def tactics(layout: Layout, channels: int) -> tuple[Tactic, ...]:
    """Those whose tile is not half empty at this number of channels; at least one."""
    fitting = tuple(t for t in TACTICS[layout] if t.block_c < 2 * channels)
    return fitting or (min(TACTICS[layout], key=lambda t: t.block_c),)


def numbered(layout: Layout, channels: int) -> dict[int, Tactic]:
    """The same by number, from 1: TensorRT keeps 0 for itself, and needs the number to mean the same at every call."""
    return {TACTICS[layout].index(tactic) + 1: tactic for tactic in tactics(layout, channels)}
