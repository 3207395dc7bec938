"""Time on the GPU, by events: median of repeated runs after a warm-up, with caches cold where that is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_L2_BYTES = 256 * 2**20  # more than any GPU's second-level cache


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a run: median and 95th percentile. peak_mib: memory that PyTorch had allocated at most."""

    ms: float
    worst_ms: float
    peak_mib: float


def measure(run: Callable[[], Any], *, repeats: int = 50, flush: bool = False) -> Timing:
    """Time `run`. flush: overwrite the second-level cache before each run, as a whole network would."""
    waste = torch.empty(_L2_BYTES, dtype=torch.uint8, device="cuda") if flush else None
    for _ in range(10):
        run()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        if waste is not None:
            waste.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    times.sort()
    return Timing(times[len(times) // 2], times[int(len(times) * 0.95)], torch.cuda.max_memory_allocated() / 2**20)


def bandwidth() -> float:
    """Bytes a second that a plain copy of 1 GiB reads and writes: what this GPU gives, not what its sheet says."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * 2**30 / (measure(lambda: target.copy_(source)).ms / 1e3)
