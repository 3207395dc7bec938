"""AlignCM: aligned context modelling (paper, section 3.3; `CAM` in the published code)."""

import torch
from torch import Tensor, nn

from model_export.alignseg.align_fa import NormLeakyReLU, OffsetGenerator
from model_export.alignseg.sampling import Sampling, sample, upsample

REGIONS = 3  # context is pooled to 3x3 regions


class Projection(nn.Sequential):
    """1x1 convolution on the backbone's channels, then 3x3 to the decoder's; each with norm and leaky ReLU."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(features, features, 1, bias=False),
            NormLeakyReLU(features),
            nn.Conv2d(features, channels, 3, padding=1, bias=False),
            NormLeakyReLU(channels),
        )


class AlignedContext(nn.Module):
    """sample(context, offsets) + local. A module of its own for the same reason as AlignedAggregate."""

    def __init__(self, sampling: Sampling) -> None:
        super().__init__()
        self.sampling = sampling

    def forward(self, local: Tensor, context: Tensor, offsets: Tensor) -> Tensor:
        """local: (N, C, H, W); context: (N, C, 3, 3); offsets: (N, 2, H, W) as (x, y). Returns (N, C, H, W)."""
        return sample(context, offsets, self.sampling) + local


class PlainCM(nn.Module):
    """What AlignCM is compared with: the same context, interpolated bilinearly between the regions."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.pooled = Projection(features, channels)
        self.local = Projection(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, features, H, W) at 1/32. Returns (N, channels, H, W)."""
        context: Tensor = self.pooled(region_means(x, REGIONS))
        out: Tensor = self.local(x) + upsample(context, (x.shape[2], x.shape[3]))
        return out


class AlignCM(nn.Module):
    """Adds to each pixel the context of the region it belongs to, rather than of the region it lies in."""

    def __init__(self, features: int, channels: int, sampling: Sampling) -> None:
        super().__init__()
        self.pooled = Projection(features, channels)
        self.local = Projection(features, channels)
        self.context_offsets = OffsetGenerator(channels)
        self.aggregate: nn.Module = AlignedContext(sampling)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, features, H, W) at 1/32. Returns (N, channels, H, W)."""
        context = self.pooled(region_means(x, REGIONS))
        local = self.local(x)
        offsets = self.context_offsets(torch.cat((local, upsample(context, (x.shape[2], x.shape[3]))), dim=1))
        out: Tensor = self.aggregate(local, context, offsets)
        return out


def region_means(x: Tensor, regions: int) -> Tensor:
    """Adaptive average pooling as two products, since ONNX has no operator for it at dynamic sizes.

    x: (N, C, H, W). Returns (N, C, regions, regions), equal to F.adaptive_avg_pool2d but for rounding.
    """
    rows = _averaging_matrix(x.shape[2], regions, x)
    columns = _averaging_matrix(x.shape[3], regions, x)
    return rows @ x @ columns.transpose(0, 1)


def _averaging_matrix(size: int, regions: int, like: Tensor) -> Tensor:
    """(regions, size): row i averages floor(i * size / regions) up to ceil((i + 1) * size / regions)."""
    region = torch.arange(regions, device=like.device).unsqueeze(1)
    position = torch.arange(size, device=like.device)
    first = torch.div(region * size, regions, rounding_mode="floor")
    last = torch.div((region + 1) * size + regions - 1, regions, rounding_mode="floor")  # ceil, exclusive
    inside = ((position >= first) & (position < last)).to(like.dtype)
    return inside / (last - first).to(like.dtype)
