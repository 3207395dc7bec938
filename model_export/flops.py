"""Parameters and floating-point operations of a network, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_export.alignseg import AlignSeg, Architecture

aten = torch.ops.aten
BILINEAR = 7
"""Operations per interpolated value: four products and three sums."""
WEIGHTS = 20
"""Operations per sampled position: grid coordinates in pixels (4), four distances (4), four weights (4), and the
conversion of an offset to coordinates: two products, two sums, two roundings, two border tests (8)."""


@dataclass(frozen=True)
class Cost:
    """Cost of one image, without the auxiliary head, which is not served. A multiply-add counts as two operations.

    flops: of convolutions, matrix products, bilinear upsampling and sampling at offsets. Norms, which are folded into
    convolutions for serving, activations and additions of maps are not counted.
    warping_flops: those of upsampling and sampling.
    """

    parameters: int
    flops: int
    warping_flops: int


def cost(architecture: Architecture, size: tuple[int, int]) -> Cost:
    """Count parameters and operations. size: (height, width) of the image."""
    with torch.device("meta"), torch.no_grad():  # in inference_mode the counter misses upsampling
        network = AlignSeg.from_architecture(replace(architecture, aux_head=False)).eval()
        warping = {aten.grid_sampler_2d: _sampling_flops, aten.upsample_bilinear2d: _upsampling_flops}
        counter = FlopCounterMode(display=False, custom_mapping=warping)
        with counter:
            network(torch.empty(1, 3, *size))
    counted = counter.get_flop_counts()["Global"]
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops(),
        warping_flops=sum(counted.get(operator, 0) for operator in warping),
    )


def _sampling_flops(feature: Any, grid: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(BILINEAR * prod(out_shape) + WEIGHTS * prod(grid[:3]))


def _upsampling_flops(*_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(BILINEAR * prod(out_shape))
