"""The kernels' reference in float64 PyTorch, and the inputs of the comparison."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.alignseg.align_cm import AlignedContext
from model_export.alignseg.align_fa import AlignedAggregate
from model_export.alignseg.sampling import Sampling

SAMPLINGS: tuple[Sampling, ...] = ("standard", "published")
# float32 storage: the rounding of about 20 products. Half types: half a step of the result; the inputs are exact.
TOLERANCES = {torch.float32: (2e-6, 2e-6), torch.float16: (1e-3, 1e-3), torch.bfloat16: (8e-3, 8e-3)}


@dataclass(frozen=True, slots=True)
class Shape:
    """(N, C, H, W) of the raster, (h, w) of the coarse map."""

    n: int
    c: int
    raster: tuple[int, int]
    small: tuple[int, int]


SHAPES = (
    Shape(1, 3, (1, 1), (1, 1)),
    Shape(1, 4, (1, 7), (1, 3)),
    Shape(1, 4, (9, 1), (2, 1)),
    Shape(2, 5, (7, 11), (4, 6)),
    Shape(1, 8, (6, 10), (6, 10)),  # as large as the raster: every second neighbour is carried
    Shape(1, 8, (8, 13), (1, 2)),
    Shape(1, 16, (12, 9), (2, 2)),
)
OFFSETS = ("zero", "random", "whole", "borders", "huge", "tiny")


def offsets(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "whole":  # taps exactly on pixels
        return (3 * noise).round()
    if kind == "borders":  # each pixel to just inside, on and just outside its borders
        return torch.where(noise > 0, 1.0, -1.0) * torch.randint(0, max(shape[2:]) + 2, shape, generator=generator)
    if kind == "huge":
        return noise * torch.tensor([1e3, 1e9, 3e38, 65000.0])[torch.randint(0, 4, shape, generator=generator)]
    return {"random": 2.0, "tiny": 1e-6}[kind] * noise


def aggregate(low: Tensor, high: Tensor, pixel_offsets: Tensor, sampling: Sampling) -> Tensor:
    return AlignedAggregate(sampling)(low.double(), high.double(), _bounded(pixel_offsets))


def context(local: Tensor, pooled: Tensor, pixel_offsets: Tensor, sampling: Sampling) -> Tensor:
    return AlignedContext(sampling)(local.double(), pooled.double(), _bounded(pixel_offsets))


def argmax(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Full-size logits in float64, and the probability of the best class."""
    full = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=True)
    return full, full.softmax(dim=1).amax(dim=1)


def _bounded(pixel_offsets: Tensor) -> Tensor:
    """grid_sample casts positions to integers, where 3e38 overflows; 1e6 is outside all the same."""
    return pixel_offsets.double().clamp(-1e6, 1e6)


def maps(
    shape: Shape, offset_channels: int, kind: str, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """(raster map, small map, offsets) of dtype; channels: of the offsets, which are finite in half types too."""
    generator = torch.Generator().manual_seed(seed)
    large = torch.randn(shape.n, shape.c, *shape.raster, generator=generator).to(dtype)
    small = torch.randn(shape.n, shape.c, *shape.small, generator=generator).to(dtype)
    move = offsets(kind, (shape.n, offset_channels, *shape.raster), generator)
    limit = torch.finfo(dtype).max
    return large, small, move.clamp(-limit, limit).to(dtype)
