"""Ways to look at a picture before averaging logits: whole, through overlapping tiles, at several scales, mirrored.

Each is made of the one before: a Look takes pictures and returns logits at the pictures' size, whatever it does inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import upsample

Predict = Callable[[Tensor], Tensor]
"""Network input (N, 3, H, W) float, normalised -> logits or probabilities (N, C, H, W) float32."""

Average = Literal["logits", "probabilities"]
OVERLAP = 1 / 3  # of a tile; as the published protocol
RASTER = 16  # pixels; at 32, the stride of the coarsest map, more padding lost more than it gained


def whole(network: AlignSeg, bf16: bool = False) -> Predict:
    """Every picture at once; logits upsampled as in serving."""

    def look(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = network(x)
        return upsample(logits.float(), (x.shape[2], x.shape[3]))

    return look


def on_raster(look: Predict) -> Predict:
    """The last row and column are repeated until each side is one more than a multiple of RASTER, as a served bucket's.

    Only then do the corners of the maps at 1/4, 1/8 and 1/16 lie on those of the picture, which is what upsampling with
    aligned corners takes for granted. The published protocol knows no such thing: its tiles are looked at as they are.
    """

    def look_padded(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        more = (0, (1 - width) % RASTER, 0, (1 - height) % RASTER)
        return look(functional.pad(x, more, mode="replicate"))[:, :, :height, :width]

    return look_padded


def sliding(look: Predict, tile: tuple[int, int], overlap: float = OVERLAP) -> Predict:
    """Through tiles of (height, width), neighbours sharing at least `overlap` of one; where tiles lap, their mean.

    The published test protocol (speedinghzl/AlignSeg, evaluate.py): a picture smaller than a tile is padded with zeros
    after normalisation, the last tile of a row or column is moved back to end at the edge.
    """

    def slide(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = functional.pad(x, (0, max(0, tile[1] - width), 0, max(0, tile[0] - height)))
        count = x.new_zeros((1, 1, *x.shape[2:]))
        total = torch.zeros((), device=x.device)
        for top in starts(x.shape[2], tile[0], overlap):
            for left in starts(x.shape[3], tile[1], overlap):
                seen = look(x[:, :, top : top + tile[0], left : left + tile[1]])
                around = (left, x.shape[3] - left - tile[1], top, x.shape[2] - top - tile[0])
                total = total + functional.pad(seen, around)
                count[:, :, top : top + tile[0], left : left + tile[1]] += 1
        return (total / count)[:, :, :height, :width]

    return slide


def starts(length: int, tile: int, overlap: float = OVERLAP) -> list[int]:
    """Where tiles of `tile` pixels begin so that they cover `length` (at least `tile`) pixels."""
    stride = math.ceil(tile * (1 - overlap))
    count = math.ceil((length - tile) / stride) + 1
    return [min(i * stride, length - tile) for i in range(count)]


def augmented(look: Predict, scales: Sequence[float], flip: bool, average: Average = "logits") -> Predict:
    """The mean of the picture at each scale and, with `flip`, of each scale's mirror image.

    average: "logits", as the published code does, or "probabilities" (softmax), as most others do.
    scales: of height and width; the scaled picture is a bilinear one with aligned corners, like the published code's.
    """

    def look_often(x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        seen = []
        for scale in scales:
            scaled = x if scale == 1 else upsample(x, scaled_size(size, scale))
            seen.append(_scores(look, scaled, size, average))
            if flip:  # the released code mirrors rows back where it mirrored columns; here the same axis both ways
                seen.append(_scores(look, scaled.flip(3), size, average).flip(3))
        return torch.stack(seen).mean(0)

    return look_often


def _scores(look: Predict, x: Tensor, size: tuple[int, int], average: Average) -> Tensor:
    logits = look(x)
    logits = logits if logits.shape[2:] == size else upsample(logits, size)
    return logits if average == "logits" else logits.softmax(dim=1)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, in whole pixels, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@dataclass(frozen=True)
class Viewing:
    """A protocol as the command line names it; the default looks once, at the whole picture, at its own size.

    tile: (height, width), or none. overlap: share of a tile. Raises ValueError for a number out of its range.
    """

    tile: tuple[int, int] | None = None
    overlap: float = OVERLAP
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Average = "logits"

    def __post_init__(self) -> None:
        if self.tile and min(self.tile) < 32:
            raise ValueError(f"tile: got {self.tile}, expected at least 32x32")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: got {self.overlap}, expected 0..1, the latter excluded")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales: got {self.scales}, expected numbers above 0, as 0.75,1,1.25")

    @property
    def plain(self) -> bool:
        """Whether it is one look at the whole picture at its own size, which an engine or a server can take too."""
        return not (self.tile or self.flip or self.scales != (1.0,))

    def look(self, network: AlignSeg, bf16: bool = False) -> Predict:
        """The protocol, through this network."""
        look = whole(network, bf16)
        look = sliding(look, self.tile, self.overlap) if self.tile else on_raster(look)
        if self.flip or self.scales != (1.0,):
            look = augmented(look, self.scales, self.flip, self.average)
        return look

    def __str__(self) -> str:
        """For headings, as "tiles of 872x872, scales 0.75 1 1.25, mirrored too"."""
        parts = [f"tiles of {self.tile[0]}x{self.tile[1]}" if self.tile else "whole pictures"]
        if self.scales != (1.0,):
            parts.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        return ", ".join([*parts, "mirrored too"] if self.flip else parts)
