"""Rewrites AlignFA's two offset generators as one, without the concatenation.

A generator begins with a 1x1 convolution W over cat(low, up(high)). With W = [W_low W_high],

    W cat(low, up(high)) = W_low low + W_high up(high) = W_low low + up(W_high high),

since a 1x1 convolution mixes channels, bilinear upsampling mixes pixels, and each is linear with weights that do not
depend on the other's axis. So the half that reads `high` runs at high's own, smaller size, and nothing is
concatenated. AlignFA's two generators read the same maps: their 1x1 convolutions become one of twice the outputs,
their norms one, their 3x3 convolutions one with two groups.

Weights are only rearranged, so those that are exact in float16 stay exact. For C channels, a pixel of `low` costs
2 * C * 2C multiplications instead of 2 * 2C * C * 2; a pixel of `high`, of which there are fewer, as many more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model_export.alignseg import AlignSeg
from model_export.alignseg.align_fa import AlignFA, OffsetGenerator
from model_export.alignseg.sampling import upsample


class MergedGenerators(nn.Module):
    """Computes what several OffsetGenerators compute in eval mode, their offsets concatenated."""

    def __init__(self, generators: Sequence[OffsetGenerator], channels: int) -> None:
        super().__init__()
        count = len(generators)
        self.from_low = nn.Conv2d(channels, count * channels, 1, bias=False)
        self.from_high = nn.Conv2d(channels, count * channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(count * channels)
        self.activation = nn.LeakyReLU(0.01)
        self.to_offsets = nn.Conv2d(count * channels, 2 * count, 3, padding=1, groups=count, bias=False)
        self._copy_weights([generator.state_dict() for generator in generators], channels)
        self.eval()

    @torch.no_grad()
    def _copy_weights(self, states: Sequence[dict[str, Tensor]], channels: int) -> None:
        self.from_low.weight.copy_(torch.cat([state["0.weight"][:, :channels] for state in states]))
        self.from_high.weight.copy_(torch.cat([state["0.weight"][:, channels:] for state in states]))
        self.to_offsets.weight.copy_(torch.cat([state["2.weight"] for state in states]))
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(self.norm, name).copy_(torch.cat([state[f"1.0.{name}"] for state in states]))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, 2 * generators, H, W) offsets as (x, y) each."""
        mixed = self.from_low(low) + upsample(self.from_high(high), (low.shape[2], low.shape[3]))
        offsets: Tensor = self.to_offsets(self.activation(self.norm(mixed)))
        return offsets


class _MergedAlignFA(nn.Module):
    """AlignFA in eval mode."""

    def __init__(self, align_fa: AlignFA, channels: int) -> None:
        super().__init__()
        self.offsets = MergedGenerators([align_fa.high_offsets, align_fa.low_offsets], channels)
        self.aggregate = align_fa.aggregate

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, C, H, W)."""
        out: Tensor = self.aggregate(low, high, self.offsets(low, high))
        return out


def merge_generators(network: AlignSeg) -> None:
    """Rewrite `network` in place. It can't be trained or saved afterwards.

    Raises ValueError when it is in training mode, in which norms depend on the batch.
    """
    if network.training:
        raise ValueError("the network is in training mode, expected eval mode; call network.eval() first")
    for number, align_fa in network.align_fa.items():
        if isinstance(align_fa, AlignFA):
            network.align_fa[number] = _MergedAlignFA(align_fa, network.architecture.channels)
