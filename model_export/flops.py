"""What a network costs to run: parameters and floating-point operations, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_export.alignseg import AlignSeg, Architecture

aten = torch.ops.aten
BILINEAR = 7
"""Operations for an interpolated value: four products and three sums."""
WEIGHTS = 20
"""Operations for a sampled position: its grid coordinates in pixels (4), its four distances (4) and weights (4), and
what turns an offset into a coordinate: two products, two sums, twice a rounding, twice the test for the border."""


@dataclass(frozen=True)
class Cost:
    """Of one picture, without the auxiliary head, which serving leaves out. Multiplication and addition count singly.

    flops: of convolutions, matrix products, bilinear upsampling and sampling at offsets. Norms (which serving folds
    into convolutions), activations and additions of maps are not counted.
    warping_flops: the part of it that is upsampling and sampling.
    """

    parameters: int
    flops: int
    warping_flops: int


def cost(architecture: Architecture, size: tuple[int, int]) -> Cost:
    """size: (height, width) of the picture."""
    with torch.device("meta"), torch.no_grad():  # in inference_mode the counter does not see upsampling
        network = AlignSeg.from_architecture(replace(architecture, aux_head=False)).eval()
        warping = {aten.grid_sampler_2d: _sampled, aten.upsample_bilinear2d: _upsampled}
        counter = FlopCounterMode(display=False, custom_mapping=warping)
        with counter:
            network(torch.empty(1, 3, *size))
    counted = counter.get_flop_counts()["Global"]
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops(),
        warping_flops=sum(counted.get(operator, 0) for operator in warping),
    )


def _sampled(feature: Any, grid: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(BILINEAR * prod(out_shape) + WEIGHTS * prod(grid[:3]))


def _upsampled(*_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(BILINEAR * prod(out_shape))
