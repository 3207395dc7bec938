"""AlignSeg's decoder for small backbones: AlignCM and AlignFA as published, everything around them slim.

Three things make it cheap; each is counted for 64 channels at 369x481 (model_export/flops.py):
- AlignFA goes from coarse to fine, each step at the resolution of its finer map: 1/16, 1/8, 1/4. The published decoder
  runs all four of its steps at 1/4, where a step costs four times as much as at 1/8.
- The offset generators are trained in the form that lowering/merged_generators.py rewrites the published ones to: a 1x1
  over cat(low, up(high)) is a 1x1 of each, and the one of `high` runs at high's own size. Their norms stand before the
  upsampling, which commutes with it too, so that they fold into the convolutions.
- Refinement and head are depthwise separable (Howard et al., 2017), with the norms beside the convolutions.
"""

import torch
from torch import Tensor, nn

from model_export.alignseg.align_cm import AlignedContext, region_means
from model_export.alignseg.align_fa import AlignedAggregate, OffsetGenerator
from model_export.alignseg.sampling import Sampling, upsample

CHANNELS = 64
STEPS = ("3", "2", "1")
"""AlignFA's steps, named after the backbone's map that each brings in: 1/16, 1/8, 1/4."""
REGIONS = 3


def conv_norm(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__(*conv_norm(inputs, outputs, kernel, groups), nn.ReLU(inplace=True))


class SlimRefine(nn.Module):
    """Residual refinement: depthwise 3x3, 1x1, added to the input (the published block has two 3x3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ConvNormReLU(channels, channels, 3, groups=channels), conv_norm(channels, channels)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        out: Tensor = self.relu(x + self.residual(x))
        return out


class SlimOffsets(nn.Module):
    """Both offset generators of an AlignFA at once. They start at zero: an unaligned aggregation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.from_low = conv_norm(channels, channels)
        self.from_high = conv_norm(channels, channels)
        self.relu = nn.ReLU(inplace=True)
        self.to_offsets = nn.Conv2d(channels, 4, 3, padding=1, groups=2, bias=False)
        nn.init.zeros_(self.to_offsets.weight)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, 4, H, W) as (x, y) of high, (x, y) of low."""
        mixed = self.from_low(low) + upsample(self.from_high(high), (low.shape[2], low.shape[3]))
        offsets: Tensor = self.to_offsets(self.relu(mixed))
        return offsets


class SlimAlignFA(nn.Module):
    """AlignFA (see align_fa.py) with SlimOffsets."""

    def __init__(self, channels: int, sampling: Sampling) -> None:
        super().__init__()
        self.offsets = SlimOffsets(channels)
        self.aggregate: nn.Module = AlignedAggregate(sampling)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low: (N, C, H, W); high: (N, C, h, w). Returns (N, C, H, W)."""
        out: Tensor = self.aggregate(low, high, self.offsets(low, high))
        return out


class SlimProjection(nn.Sequential):
    """1x1 convolution from the backbone's channels to the decoder's, then 3x3; each with norm and ReLU."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(ConvNormReLU(features, channels), ConvNormReLU(channels, channels, 3))


class SlimCM(nn.Module):
    """AlignCM, or with aligned=False PlainCM (see align_cm.py), with slim projections."""

    def __init__(self, features: int, channels: int, sampling: Sampling, aligned: bool) -> None:
        super().__init__()
        self.pooled = SlimProjection(features, channels)
        self.local = SlimProjection(features, channels)
        self.context_offsets = OffsetGenerator(channels) if aligned else None
        self.aggregate: nn.Module = AlignedContext(sampling) if aligned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, features, H, W) at 1/32. Returns (N, channels, H, W)."""
        context = self.pooled(region_means(x, REGIONS))
        local: Tensor = self.local(x)
        spread = upsample(context, (x.shape[2], x.shape[3]))
        if self.context_offsets is None:
            return local + spread
        offsets = self.context_offsets(torch.cat((local, spread), dim=1))
        out: Tensor = self.aggregate(local, context, offsets)
        return out


class SlimHead(nn.Sequential):
    """(N, channels, H, W) -> (N, num_classes, H, W) logits; the classifier is number 3, as in the published head."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            ConvNormReLU(channels, channels, 3, groups=channels),
            ConvNormReLU(channels, channels),
            nn.Dropout2d(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )
