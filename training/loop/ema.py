"""A moving average of the weights, usually a point or more of mIoU better than the weights of the last step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A copy of a network with the exponential moving average of its weights and BatchNorm statistics.

    Update t (from 1) moves it by a share of 1 - min(decay, t / (t + 9)): larger at first, so that the untrained initial
    weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network; integer buffers (BatchNorm's counters) are copied."""
        self.updates += 1
        share = 1.0 - min(self.decay, self.updates / (self.updates + 9))
        average, current = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[n] for n in floating], [current[n] for n in floating], share)
        for name in average.keys() - set(floating):
            average[name].copy_(current[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """The average and the number of updates."""
        return {**self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned."""
        self.updates = int(state["updates"])
        self.network.load_state_dict({name: value for name, value in state.items() if name != "updates"})
