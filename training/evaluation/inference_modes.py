"""How an image is given to a network: whole, as a sliding window, at several scales, with its mirror image.

Each mode wraps a Predict and is one itself, so that modes can be combined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import upsample

Average = Literal["logits", "probabilities"]
OVERLAP = 1 / 3  # of a tile, as in the published protocol
RASTER = 16  # pixels; with 32, the stride of the coarsest map, the additional padding costs more than it gains


class Predict(Protocol):
    """Computes class scores."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Input (N, 3, H, W) float, normalised -> logits or probabilities (N, C, H, W) float32."""


def whole_image(network: AlignSeg, bf16: bool = False) -> Predict:
    """Each image at once; logits are upsampled as in serving."""

    def predict(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = network(x)
        return upsample(logits.float(), (x.shape[2], x.shape[3]))

    return predict


def pad_to_raster(predict: Predict) -> Predict:
    """Repeat the last row and column until each side is one more than a multiple of RASTER, as a served bucket's.

    Only then do the corners of the maps at 1/4, 1/8 and 1/16 lie on those of the image, which upsampling with aligned
    corners assumes. The published protocol does not pad its tiles.
    """

    def predict_padded(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padding = (0, (1 - width) % RASTER, 0, (1 - height) % RASTER)
        return predict(functional.pad(x, padding, mode="replicate"))[:, :, :height, :width]

    return predict_padded


def sliding_window(predict: Predict, tile: tuple[int, int], overlap: float = OVERLAP) -> Predict:
    """Tiles of (height, width), each sharing at least `overlap` with its neighbour; scores are averaged where they do.

    The published test protocol (speedinghzl/AlignSeg, evaluate.py): an image smaller than a tile is padded with zeros
    after normalisation, and the last tile of a row or column is moved back to end at the edge.
    """

    def predict_tiles(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = functional.pad(x, (0, max(0, tile[1] - width), 0, max(0, tile[0] - height)))
        count = x.new_zeros((1, 1, *x.shape[2:]))
        total = torch.zeros((), device=x.device)
        for top in starts(x.shape[2], tile[0], overlap):
            for left in starts(x.shape[3], tile[1], overlap):
                scores = predict(x[:, :, top : top + tile[0], left : left + tile[1]])
                margins = (left, x.shape[3] - left - tile[1], top, x.shape[2] - top - tile[0])
                total = total + functional.pad(scores, margins)
                count[:, :, top : top + tile[0], left : left + tile[1]] += 1
        return (total / count)[:, :, :height, :width]

    return predict_tiles


def starts(length: int, tile: int, overlap: float = OVERLAP) -> list[int]:
    """First pixels of tiles of `tile` pixels that cover `length` pixels (at least `tile`)."""
    stride = math.ceil(tile * (1 - overlap))
    count = math.ceil((length - tile) / stride) + 1
    return [min(i * stride, length - tile) for i in range(count)]


def multi_scale(predict: Predict, scales: Sequence[float], flip: bool, average: Average = "logits") -> Predict:
    """The mean over the image at each scale and, with `flip`, over the mirror image of each.

    average: "logits", as in the published code, or "probabilities" (softmax), as in most other work.
    scales: of height and width; images are scaled bilinearly with aligned corners, as in the published code.
    """

    def predict_mean(x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        scores = []
        for scale in scales:
            scaled = x if scale == 1 else upsample(x, scaled_size(size, scale))
            scores.append(_scores(predict, scaled, size, average))
            if flip:  # the published code flips back along another axis than it flipped; here it is the same
                scores.append(_scores(predict, scaled.flip(3), size, average).flip(3))
        return torch.stack(scores).mean(0)

    return predict_mean


def _scores(predict: Predict, x: Tensor, size: tuple[int, int], average: Average) -> Tensor:
    logits = predict(x)
    logits = logits if logits.shape[2:] == size else upsample(logits, size)
    return logits if average == "logits" else logits.softmax(dim=1)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, in whole pixels, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@dataclass(frozen=True)
class InferenceMode:
    """The options of the command line; the default is the whole image once, at its own size.

    tile: (height, width) of a sliding window, or None. overlap: share of a tile. scales, flip, average: of multi_scale.
    Raises ValueError for a value out of its range.
    """

    tile: tuple[int, int] | None = None
    overlap: float = OVERLAP
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Average = "logits"

    def __post_init__(self) -> None:
        if self.tile and min(self.tile) < 32:
            raise ValueError(f"--tile: got {self.tile[0]}x{self.tile[1]}; expected at least 32x32")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"--overlap: got {self.overlap}; expected at least 0 and less than 1")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"--scales: got {self.scales}; expected positive numbers, such as 0.75,1,1.25")

    @property
    def is_default(self) -> bool:
        """Whether it is the whole image once, at its own size: engines and servers have no other mode."""
        return not (self.tile or self.flip or self.scales != (1.0,))

    def predict_with(self, network: AlignSeg, bf16: bool = False) -> Predict:
        """The network in this mode."""
        predict = whole_image(network, bf16)
        predict = sliding_window(predict, self.tile, self.overlap) if self.tile else pad_to_raster(predict)
        if self.flip or self.scales != (1.0,):
            predict = multi_scale(predict, self.scales, self.flip, self.average)
        return predict

    def __str__(self) -> str:
        """For headings, such as "tiles of 872x872, scales 0.75 1 1.25, mirror images"."""
        parts = [f"tiles of {self.tile[0]}x{self.tile[1]}" if self.tile else "whole images"]
        if self.scales != (1.0,):
            parts.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        return ", ".join([*parts, "mirror images"] if self.flip else parts)
