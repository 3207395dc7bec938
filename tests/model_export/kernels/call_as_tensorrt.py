"""Calls a kernel as TensorRT does: with pointers into larger memory, in TensorRT's formats.

Inputs lie between NaNs, so that a read outside them shows in the result; the output lies between sevens.
"""

from typing import Any

import torch
from torch import Tensor

from model_export.kernels.tactics import Tactic

_BESIDE = 64  # elements before and after


def run(
    name: str, maps: tuple[Tensor, Tensor, Tensor], sampling: str, tactic: Tactic, *, last: bool, offsets_pixel: int
) -> Tensor:
    """maps: raster map, other map, offsets, planar. last: HWC or HWC8, C a multiple of 8; offsets_pixel: 0 is LINEAR.

    Returns (N, C, H, W), planar. Raises AssertionError when something beside the result was written.
    """
    from model_export.kernels import aligned_sampling

    raster, other, offsets = maps
    count, channels, height, width = raster.shape
    pixel = channels if last else 0
    out, sevens = _between(torch.full_like(raster, 7.0), pixel, 7.0)
    kernel: Any = getattr(aligned_sampling, name)
    kernel[tactic.grid(height, width, channels, count)](
        _between(raster, pixel)[0], _between(other, pixel)[0], _between(offsets, offsets_pixel)[0],
        height, width, *other.shape[2:], out,
        C=channels, STANDARD=sampling == "standard", PIXEL=pixel, OFFSETS_PIXEL=offsets_pixel,
        LANES=tactic.lanes, BLOCK_H=tactic.block_h, BLOCK_W=tactic.block_w, BLOCK_C=tactic.block_c,
        num_warps=tactic.warps,
    )  # fmt: skip
    assert (sevens[:_BESIDE] == 7).all() and (sevens[-_BESIDE:] == 7).all()
    return out.view(count, height, width, channels).permute(0, 3, 1, 2) if last else out.view(raster.shape)


def _between(x: Tensor, pixel: int, beside: float = float("nan")) -> tuple[Tensor, Tensor]:
    """The elements of x in their format, as a part of a larger memory, and that memory.

    pixel: elements from a pixel to the next, the padding filled with `beside` too; 0: planar.
    """
    if pixel:
        padded = x.new_full((x.shape[0], *x.shape[2:], pixel), beside)
        padded[..., : x.shape[1]] = x.permute(0, 2, 3, 1)
        x = padded
    memory = x.new_full((x.numel() + 2 * _BESIDE,), beside)
    inside = memory[_BESIDE:-_BESIDE]
    inside.copy_(x.flatten())
    return inside, memory
