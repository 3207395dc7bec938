"""The learning rate over a run: a linear warm-up, then poly 0.9."""

from __future__ import annotations


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0, power: float = 0.9) -> float:
    """The rate of `step` (0-based) of `steps`: peak * (1 - step/steps)^power, times (step+1)/warmup while below 1."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    falling: float = (1.0 - min(step, steps) / steps) ** power
    return peak * rising * falling
