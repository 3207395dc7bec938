"""Data-parallel training in several processes started by torchrun; a single process is a group of one.

Each process computes the gradients of its share of a batch, and all take the same step on their mean. On a CPU, one
process per core (one thread each) is also faster than one process with a thread per core when other programs use the
cores: threads synchronise hundreds of times a step, processes once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size` processes that exchange tensors on `device`."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls, device: str) -> ProcessGroup:
        """The group that torchrun started this process in, or a group of one."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Replace float tensors by their mean over all processes, in one exchange."""
        if self.size == 1:
            return
        originals = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in originals])
        distributed.all_reduce(flat)
        means = torch.split(flat / self.size, [tensor.numel() for tensor in originals])
        shaped = [mean.view_as(tensor) for mean, tensor in zip(means, originals, strict=True)]
        torch._foreach_copy_(originals, shaped)

    def total(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process; the result is the same in all."""
        return bool(self.total(torch.tensor(float(flag), device=self.device)).item()) if self.size > 1 else flag

    def broadcast(self, network: nn.Module) -> None:
        """Copy weights and buffers of the main process to all others."""
        if self.size > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, 0)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            distributed.destroy_process_group()
