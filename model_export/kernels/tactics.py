"""The block sizes that TensorRT times the kernels with, and the grid of a launch. Imports no framework."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["planar", "channels_last"]


@dataclass(frozen=True, slots=True)
class Tactic:
    """One Triton program computes block_h x block_w pixels by block_c channels with `warps` warps of 32 threads.

    block_h * block_w is at most the number of threads, and equals it in the planar layout; all are powers of two.
    """

    block_h: int
    block_w: int
    block_c: int
    warps: int

    @property
    def lanes(self) -> int:
        """Threads to a pixel: each computes other channels of it."""
        return 32 * self.warps // (self.block_h * self.block_w)

    def grid(self, height: int, width: int, channels: int, images: int) -> tuple[int, int, int]:
        """Programs along pixels, channels and images."""
        tiles = -(-height // self.block_h) * -(-width // self.block_w)
        return tiles, -(-channels // self.block_c), images


# Channels last: a thread reads 16 bytes of channels of a pixel, its neighbours the next ones. Tiles of two or four rows
# share the rows that they read. Planar: neighbouring threads read neighbouring pixels of one channel.
TACTICS: dict[Layout, tuple[Tactic, ...]] = {
    "channels_last": (
        Tactic(2, 8, 256, 4), Tactic(2, 8, 64, 4), Tactic(4, 8, 128, 4), Tactic(4, 8, 32, 4), Tactic(2, 4, 128, 4),
    ),
    "planar": (Tactic(4, 32, 32, 4), Tactic(4, 32, 8, 4), Tactic(2, 32, 16, 2), Tactic(2, 32, 4, 2)),
}  # fmt: skip


def tactics(layout: Layout, channels: int) -> tuple[Tactic, ...]:
    """The tactics whose tile is more than half full at this number of channels; at least one."""
    fitting = tuple(t for t in TACTICS[layout] if t.block_c < 2 * channels)
    return fitting or (min(TACTICS[layout], key=lambda t: t.block_c),)


def numbered(layout: Layout, channels: int) -> dict[int, Tactic]:
    """The same by number, from 1: TensorRT reserves 0, and a number must mean the same tactic at every call."""
    return {TACTICS[layout].index(tactic) + 1: tactic for tactic in tactics(layout, channels)}
