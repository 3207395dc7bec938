"""Mixed precision: convolutions in bfloat16, coordinates in float32.

bfloat16 has 8 bits: near the border of a map 100 pixels wide, sampling coordinates in it would be off by a fifth of a
pixel. The modules that sample are handed float32, and so compute their coordinates in it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from model_export.alignseg.align_cm import AlignedContext
from model_export.alignseg.align_fa import AlignedAggregate


def keep_sampling_float32(network: nn.Module) -> None:
    """Have every aligned sampling of `network` take its inputs as float32 from now on."""
    for module in network.modules():
        if isinstance(module, AlignedAggregate | AlignedContext):
            module.register_forward_pre_hook(_to_float32)


def _to_float32(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in inputs)


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """bfloat16 where it is safe when `amp` is "bf16", else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16")
