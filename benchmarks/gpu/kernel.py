"""The fused kernel alone: against PyTorch's chain, and against the bytes that must move over measured bandwidth."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.gpu.timing import bandwidth, measure
from model_export.alignseg.align_fa import AlignedAggregate
from model_export.plugins import launch
from model_export.plugins.tactics import tactics

# (C, (H, W), (h, w)): the AlignFA of each backbone at stride 4 of 1024x2048 and of 360x480, coarse map at 1/2 and 1/8.
SHAPES = (
    (256, (256, 512), (128, 256)), (256, (256, 512), (32, 64)),
    (128, (90, 120), (45, 60)), (64, (90, 120), (12, 15)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelRow:
    """Milliseconds of the best tactic and of the chain; of_limit: share of the time that the bytes alone would take."""

    shape: str
    storage: str
    layout: str
    tactic: str
    fused_ms: float
    chain_ms: float
    speedup: float
    of_limit: float


def rows() -> Iterator[KernelRow]:
    """One row a shape, type and layout. Aim: of_limit >= 0.8, speedup >= 3."""
    bytes_a_second = bandwidth()
    for channels, raster, small in SHAPES:
        for dtype in (torch.float16, torch.float32):
            for memory_format in (torch.channels_last, torch.contiguous_format):
                yield _row(channels, raster, small, dtype, memory_format, bytes_a_second)


def _row(
    channels: int, raster: tuple[int, int], small: tuple[int, int], dtype: torch.dtype,
    memory_format: torch.memory_format, bytes_a_second: float,
) -> KernelRow:  # fmt: skip
    options = {"device": "cuda", "dtype": dtype}
    low = torch.randn(1, channels, *raster, **options).contiguous(memory_format=memory_format)
    high = torch.randn(1, channels, *small, **options).contiguous(memory_format=memory_format)
    offsets = 2 * torch.randn(1, 4, *raster, **options)
    chain = measure(lambda: AlignedAggregate("standard")(low, high, offsets), flush=True)
    best = min(
        (measure(lambda t=t: launch.aligned_aggregate(low, high, offsets, "standard", t), flush=True).ms, str(t))
        for t in tactics(launch.layout_of(low), channels)
    )
    moved = sum(x.numel() * x.element_size() for x in (low, low, high, offsets))
    return KernelRow(
        f"{channels}x{raster[0]}x{raster[1]} <- {small[0]}x{small[1]}", str(dtype).removeprefix("torch."),
        launch.layout_of(low), best[1], best[0], chain.ms, chain.ms / best[0], moved / bytes_a_second * 1e3 / best[0],
    )  # fmt: skip
