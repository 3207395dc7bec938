"""The optimiser and its learning rate: a linear warm-up, then polynomial decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from training.config import Config


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW. Weight decay applies to kernels, and to norms and biases with `decay_norms`.

    A group's "share" is its part of the learning rate; without one, all of it.
    """
    if config.backbone_lr == 1.0:
        groups = _by_decay(network.parameters(), config)
    else:
        names = dict(network.named_parameters())
        backbone = [parameter for name, parameter in names.items() if name.startswith("backbone.")]
        decoder = [parameter for name, parameter in names.items() if not name.startswith("backbone.")]
        groups = [{**group, "share": config.backbone_lr} for group in _by_decay(backbone, config)]
        groups += _by_decay(decoder, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def _by_decay(parameters: Iterable[nn.Parameter], config: Config) -> list[dict[str, Any]]:
    """Kernels, which decay, and norms and biases, which decay only with `decay_norms`."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (kernels if parameter.ndim > 1 or config.decay_norms else others).append(parameter)
    return [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0, power: float = 0.9) -> float:
    """The rate of `step` (0-based) of `steps`: peak * (1 - step/steps)^power * min(1, (step+1)/warmup)."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    falling: float = (1.0 - min(step, steps) / steps) ** power
    return peak * rising * falling
