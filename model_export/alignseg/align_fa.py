"""AlignFA: aligned feature aggregation (paper, section 3.2; `CAB` in the published code)."""

import torch
from torch import Tensor, nn

from model_export.alignseg.sampling import Sampling, sample, upsample


class NormLeakyReLU(nn.Sequential):
    """What InPlaceABN computes: norm, then leaky ReLU 0.01."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.LeakyReLU(0.01, inplace=True))


class OffsetGenerator(nn.Sequential):
    """(N, 2 * channels, H, W) -> (N, 2, H, W) offsets (x, y). Starts at zero: an unaligned aggregation."""

    def __init__(self, channels: int) -> None:
        to_offsets = nn.Conv2d(channels, 2, 3, padding=1, bias=False)
        nn.init.zeros_(to_offsets.weight)
        super().__init__(nn.Conv2d(2 * channels, channels, 1, bias=False), NormLeakyReLU(channels), to_offsets)


class AlignedAggregate(nn.Module):
    """sample(upsample(high), offsets of high) + sample(low, offsets of low).

    A module of its own, without weights, since export and GPU kernels put their own node in its place.
    """

    def __init__(self, sampling: Sampling) -> None:
        super().__init__()
        self.sampling = sampling

    def forward(self, low: Tensor, high: Tensor, offsets: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w); offsets: (N, 4, H, W) as (x, y) of high, (x, y) of low.

        Returns (N, C, H, W).
        """
        high_up = upsample(high, (low.shape[2], low.shape[3]))
        return sample(high_up, offsets[:, :2], self.sampling) + sample(low, offsets[:, 2:], self.sampling)


class PlainFA(nn.Module):
    """What AlignFA is compared with: low + upsample(high), as in FPN (Lin et al., CVPR 2017)."""

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, C, H, W)."""
        return low + upsample(high, (low.shape[2], low.shape[3]))


class AlignFA(nn.Module):
    """Adds a low-level map (large, sharp) and a high-level one (small, semantic), each moved to where they agree."""

    def __init__(self, channels: int, sampling: Sampling) -> None:
        super().__init__()
        self.high_offsets = OffsetGenerator(channels)
        self.low_offsets = OffsetGenerator(channels)
        self.aggregate: nn.Module = AlignedAggregate(sampling)

    def offsets(self, low: Tensor, high: Tensor) -> Tensor:
        """(N, 4, H, W): (x, y) of high, (x, y) of low."""
        both = torch.cat((low, upsample(high, (low.shape[2], low.shape[3]))), dim=1)
        return torch.cat((self.high_offsets(both), self.low_offsets(both)), dim=1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, C, H, W)."""
        out: Tensor = self.aggregate(low, high, self.offsets(low, high))
        return out
