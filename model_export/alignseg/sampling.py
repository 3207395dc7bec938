"""Bilinear sampling at learned offsets: both conventions, written once."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Sampling = Literal["standard", "published"]


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, as everywhere in AlignSeg. x: (N, C, h, w); size: (H, W)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def sample(feature: Tensor, offsets: Tensor, sampling: Sampling) -> Tensor:
    """Resample `feature` onto the offsets' raster, each pixel moved by its own offset; zeros lie outside.

    feature: (N, C, h, w). offsets: (N, 2, H, W) as (x, y). Returns (N, C, H, W) of the feature's dtype.
    sampling: where pixel (i, j) of (H, W) reads, along x (y alike), at offset d:
      "standard"  (i + d) * (w - 1) / (W - 1): d counts pixels of the raster; at d = 0 this is `upsample`.
      "published" i * w / (W - 1) - 0.5 + d / 2: as in the released code, whose weights only fit this.
    """
    height, width = offsets.shape[2:]
    # Where to read is computed in float32 at least: under autocast a bfloat16 grid would be 0.2 pixels off at width 96.
    precise = torch.promote_types(offsets.dtype, torch.float32)
    offsets = offsets.to(precise)
    if sampling == "standard":
        unit = (2 / max(width - 1, 1), 2 / max(height - 1, 1))
    else:
        unit = (1 / feature.shape[3], 1 / feature.shape[2])
    x = _linspace(width, offsets) + offsets[:, 0] * unit[0]  # (N, H, W)
    y = _linspace(height, offsets).unsqueeze(1) + offsets[:, 1] * unit[1]
    grid = torch.stack((x, y), dim=3)
    aligned = sampling == "standard"
    return F.grid_sample(feature.to(precise), grid, mode="bilinear", padding_mode="zeros", align_corners=aligned).to(
        feature.dtype
    )


def _linspace(steps: int, like: Tensor) -> Tensor:
    """-1 .. 1, made of the shape at run time, so that an export stays dynamic; [-1] for one step."""
    positions = torch.arange(steps, dtype=like.dtype, device=like.device)
    return positions * (2 / max(steps - 1, 1)) - 1
