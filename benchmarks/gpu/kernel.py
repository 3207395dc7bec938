"""The fused kernels alone, against the same operations in PyTorch and against the memory bandwidth."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import launch, timing
from model_export.kernels.tactics import tactics

# (C, (H, W), (h, w)): the AlignFA of each backbone at stride 4 of 1024x2048, 360x480 and 369x481, the coarse map at
# 1/2 and 1/8 of the raster.
AGGREGATES = (
    (256, (256, 512), (128, 256)), (256, (256, 512), (32, 64)),
    (128, (90, 120), (45, 60)), (64, (93, 121), (12, 16)),
)  # fmt: skip
ARGMAXES = ((19, (256, 512), (1024, 2048)), (11, (93, 121), (369, 481)))  # classes, logits, class map
Formats = tuple[torch.dtype, torch.memory_format]
FORMATS: tuple[Formats, ...] = tuple(
    (dtype, memory_format)
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for memory_format in (torch.channels_last, torch.contiguous_format)
)


@dataclass(frozen=True, slots=True)
class KernelRow:
    """Milliseconds of the best tactic and of PyTorch's chain. of_limit: time for the bytes alone / fused_ms.

    tactics_ms: milliseconds of each tactic.
    """

    operation: str
    storage: str
    layout: str
    tactic: str
    fused_ms: float
    chain_ms: float
    speedup: float
    of_limit: float
    tactics_ms: dict[str, float]


def rows() -> Iterator[tuple[str, Callable[[float], KernelRow]]]:
    """Yield the name of each row and the function that measures it, given the bandwidth in bytes a second.

    Aim: of_limit >= 0.8, speedup >= 3.
    """
    for dtype, memory_format in FORMATS:
        storage = f"{str(dtype).removeprefix('torch.')} {str(memory_format).removeprefix('torch.')}"
        for shape in AGGREGATES:
            yield f"aggregate {_shape_name(*shape)} {storage}", partial(_aggregate, shape, dtype, memory_format)
        for shape in ARGMAXES:
            yield f"upsample_argmax {_shape_name(*shape)} {storage}", partial(_argmax, shape, dtype, memory_format)


Shape = tuple[int, tuple[int, int], tuple[int, int]]


def _aggregate(shape: Shape, dtype: torch.dtype, memory_format: torch.memory_format, bandwidth: float) -> KernelRow:
    channels, raster, small = shape
    low, high = (_random(channels, size, dtype, memory_format) for size in (raster, small))
    offsets = 2 * _random(4, raster, dtype, torch.contiguous_format)
    fused = {
        str(tactic): partial(launch.aligned_aggregate, low, high, offsets, "standard", tactic)
        for tactic in tactics(launch.layout_of(low), channels)
    }
    moved = sum(x.numel() * x.element_size() for x in (low, low, high, offsets))
    return _row(f"aggregate {_shape_name(*shape)}", low, fused, partial(_chain, low, high, offsets), moved / bandwidth)


def _argmax(shape: Shape, dtype: torch.dtype, memory_format: torch.memory_format, bandwidth: float) -> KernelRow:
    classes, small, size = shape
    logits = _random(classes, small, dtype, memory_format)

    def chain() -> Tensor:
        return F.interpolate(logits, size, mode="bilinear", align_corners=True).argmax(dim=1).to(torch.uint8)

    moved = logits.numel() * logits.element_size() + size[0] * size[1]
    fused = {"": partial(launch.upsample_argmax, logits, size)}
    return _row(f"upsample_argmax {_shape_name(*shape)}", logits, fused, chain, moved / bandwidth)


def _chain(low: Tensor, high: Tensor, offsets: Tensor) -> Tensor:
    """The fastest chain of PyTorch operators: all in the storage type, although a float16 grid is inexact."""
    high_up = F.interpolate(high, low.shape[2:], mode="bilinear", align_corners=True)
    return _sample(high_up, offsets[:, :2]) + _sample(low, offsets[:, 2:])


def _sample(feature: Tensor, offsets: Tensor) -> Tensor:
    height, width = feature.shape[2:]
    x = torch.linspace(-1, 1, width, device=offsets.device, dtype=offsets.dtype) + offsets[:, 0] * (2 / (width - 1))
    rows = torch.linspace(-1, 1, height, device=offsets.device, dtype=offsets.dtype)
    y = rows.unsqueeze(1) + offsets[:, 1] * (2 / (height - 1))
    return F.grid_sample(feature, torch.stack((x, y), dim=3), align_corners=True)


def _row(
    operation: str, raster: Tensor, fused: Mapping[str, timing.Run], chain: timing.Run, limit_s: float
) -> KernelRow:
    """fused: a run for each tactic, by name."""
    chain_ms = timing.by_events(timing.graphed(chain))
    every = {name: timing.by_events(timing.graphed(run)) for name, run in fused.items()}
    tactic = min(every, key=lambda name: every[name])
    best_ms = every[tactic]
    return KernelRow(
        operation, str(raster.dtype).removeprefix("torch."), launch.layout_of(raster), tactic,
        best_ms, chain_ms, chain_ms / best_ms, 1e3 * limit_s / best_ms, every,
    )  # fmt: skip


def _random(channels: int, size: tuple[int, int], dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    x = torch.randn(1, channels, *size, device=timing.DEVICE, dtype=dtype)
    return x.contiguous(memory_format=memory_format)


def _shape_name(channels: int, one: tuple[int, int], other: tuple[int, int]) -> str:
    return f"{channels}x{one[0]}x{one[1]} {other[0]}x{other[1]}"
