"""Runs the kernels on PyTorch tensors: on CUDA, or on the CPU under TRITON_INTERPRET=1 (slow, for tests)."""

from typing import Any

import torch
from torch import Tensor

from model_export.alignseg.sampling import Sampling
from model_export.kernels.tactics import Layout, Tactic, tactics

_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def aligned_aggregate(
    low: Tensor, high: Tensor, offsets: Tensor, sampling: Sampling, tactic: Tactic | None = None
) -> Tensor:
    """sample(upsample(high), offsets[:, :2]) + sample(low, offsets[:, 2:]).

    low: (N, C, H, W) float32, float16 or bfloat16; high: (N, C, h, w) of the same type, h <= H, w <= W;
    offsets: (N, 4, H, W) of any of the three. Returns (N, C, H, W) in low's type and memory format.
    Raises ValueError when the shapes or types do not fit.
    """
    _require(low, high, offsets, 4)
    if high.shape[2] > low.shape[2] or high.shape[3] > low.shape[3]:
        raise ValueError(f"high {_size(high)} must not be larger than low {_size(low)}: it is the coarse map")
    return _launch("aligned_aggregate", low, high, offsets, sampling, tactic)


def aligned_context(
    local: Tensor, context: Tensor, offsets: Tensor, sampling: Sampling, tactic: Tactic | None = None
) -> Tensor:
    """sample(context, offsets) + local.

    local: (N, C, H, W); context: (N, C, h, w), any size; offsets: (N, 2, H, W). Types and result as above.
    """
    _require(local, context, offsets, 2)
    return _launch("aligned_context", local, context, offsets, sampling, tactic)


def upsample_argmax(logits: Tensor, size: tuple[int, int], confidence: bool = False) -> tuple[Tensor, Tensor | None]:
    """Class map and confidence of logits upsampled (align_corners) to `size`.

    logits: (N, K, h, w), K <= 255; size: (H, W). Returns (N, H, W) uint8 class ids, of equal logits the first, and with
    `confidence` (N, H, W) uint8, the class's softmax probability times 255, rounded.
    """
    from benchmarks.gpu import upsample_argmax  # noqa: PLC0415 - triton only where kernels run

    count, classes, small_height, small_width = logits.shape
    height, width = size
    if classes > 255:
        raise ValueError(f"a uint8 class map holds 255 classes, the logits have {classes}")
    last = _is_channels_last(logits)
    logits = logits.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    ids = torch.empty((count, height, width), dtype=torch.uint8, device=logits.device)
    certainty = torch.empty_like(ids) if confidence else ids
    block = 256
    upsample_argmax.upsample_argmax[(-(-height * width // block), count)](
        logits, height, width, small_height, small_width, ids, certainty,
        K=classes, PIXEL=classes if last else 0, CONFIDENCE=confidence, BLOCK_P=block, num_warps=4,
    )  # fmt: skip
    return ids, certainty if confidence else None


def layout_of(x: Tensor) -> Layout:
    """The layout of a feature map."""
    return "channels_last" if _is_channels_last(x) else "planar"


def _launch(
    name: str, raster: Tensor, other: Tensor, offsets: Tensor, sampling: Sampling, tactic: Tactic | None
) -> Tensor:
    from model_export.kernels import aligned_sampling  # noqa: PLC0415 - triton only where kernels run

    layout = layout_of(raster)
    last = layout == "channels_last"
    memory_format = torch.channels_last if last else torch.contiguous_format
    count, channels, height, width = raster.shape
    chosen = tactic or tactics(layout, channels)[0]
    out = torch.empty_like(raster, memory_format=memory_format)
    kernel: Any = getattr(aligned_sampling, name)
    kernel[chosen.grid(height, width, channels, count)](
        raster.contiguous(memory_format=memory_format), other.contiguous(memory_format=memory_format),
        offsets.contiguous(), height, width, *other.shape[2:], out,
        C=channels, STANDARD=sampling == "standard", PIXEL=channels if last else 0, OFFSETS_PIXEL=0,
        LANES=chosen.lanes, BLOCK_H=chosen.block_h, BLOCK_W=chosen.block_w, BLOCK_C=chosen.block_c,
        num_warps=chosen.warps,
    )  # fmt: skip
    return out


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _require(raster: Tensor, other: Tensor, offsets: Tensor, offset_channels: int) -> None:
    """Raises ValueError when shapes or types do not fit."""
    expected = (raster.shape[0], offset_channels, *raster.shape[2:])
    if tuple(offsets.shape) != expected or raster.shape[:2] != other.shape[:2]:
        raise ValueError(
            f"got maps {tuple(raster.shape)} and {tuple(other.shape)} with offsets {tuple(offsets.shape)}; "
            f"expected maps of equal (N, C) and offsets {expected}"
        )
    if raster.dtype != other.dtype or raster.dtype not in _TYPES or offsets.dtype not in _TYPES:
        raise ValueError(
            f"got {raster.dtype}, {other.dtype} and offsets {offsets.dtype}; expected maps of one type, all of {_TYPES}"
        )


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]
