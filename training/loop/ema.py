"""A moving average of the weights: smoother than the last step's, and usually a point or more of mIoU better."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A copy of a network whose weights and BatchNorm statistics follow the network's slowly.

    Update t (from 1) takes a share of 1 - min(decay, t / (t + 9)) of the network, so that the average is not held back
    by the untrained weights it starts from.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network; integer buffers (BatchNorm's counters) are copied."""
        self.updates += 1
        share = 1.0 - min(self.decay, self.updates / (self.updates + 9))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floating], [theirs[n] for n in floating], share)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """The average and how often it was updated."""
        return {**self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take up what `state_dict` gave."""
        self.updates = int(state["updates"])
        self.network.load_state_dict({name: value for name, value in state.items() if name != "updates"})
