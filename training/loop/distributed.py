"""Several processes that train one network together, started by torchrun; one process alone is a team of one.

Each member computes the gradients of its share of every batch, and all take the same step on their mean. On a CPU, one
process a core (one thread each) also beats one process with a thread a core when other programs want the cores: threads
wait for each other hundreds of times a step, members once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those that train together: `rank` of `size`, exchanging tensors of `device`."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls, device: str) -> ProcessGroup:
        """The team that torchrun started this process in, or a team of one."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this member writes files and talks."""
        return self.rank == 0

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Replace float tensors by their mean over the team, in one exchange."""
        if self.size == 1:
            return
        held = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in held])
        distributed.all_reduce(flat)
        parts = torch.split(flat / self.size, [t.numel() for t in held])
        torch._foreach_copy_(held, [part.view_as(t) for part, t in zip(parts, held, strict=True)])

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of everyone's `tensor`, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any member says yes; everyone gets the same answer."""
        return bool(self.total(torch.tensor(float(flag), device=self.device)).item()) if self.size > 1 else flag

    def follow_leader(self, network: nn.Module) -> None:
        """Take over the leader's weights and buffers."""
        if self.size > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, 0)

    def leave(self) -> None:
        """End the exchange."""
        if self.size > 1:
            distributed.destroy_process_group()
