"""The optimiser and its learning rate: a linear warm-up, then polynomial decay."""

from __future__ import annotations

import torch
from torch import nn

from training.config import Config


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW. Weight decay applies to kernels, and to norms and biases with `decay_norms`."""
    kernels = [p for p in network.parameters() if p.ndim > 1 or config.decay_norms]
    others = [p for p in network.parameters() if p.ndim <= 1 and not config.decay_norms]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0, power: float = 0.9) -> float:
    """The rate of `step` (0-based) of `steps`: peak * (1 - step/steps)^power * min(1, (step+1)/warmup)."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    falling: float = (1.0 - min(step, steps) / steps) ** power
    return peak * rising * falling
