"""Time on the GPU: median of repeated runs after a warm-up."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_L2_BYTES = 256 * 2**20  # more than any GPU's second-level cache
_WARM_UP = 10
Run = Callable[[], Any]


def by_events(run: Run, repeats: int = 50) -> float:
    """Milliseconds of GPU time, with the second-level cache overwritten before each run, as a whole network would."""
    waste = torch.empty(_L2_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(repeats):
        waste.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def by_clock(run: Run, repeats: int = 30) -> float:
    """Milliseconds until `run` returns; what it starts on the GPU, it must wait for."""
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def graphed(run: Run) -> Run:
    """`run` as one CUDA graph, so that Python's launches are not what is timed."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # compiles, and allocates what is allocated once
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def bandwidth() -> float:
    """Bytes a second that a plain copy of 1 GiB reads and writes: what this GPU gives, not what its sheet says."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * 2**30 / (by_events(lambda: target.copy_(source)) / 1e3)


def free_memory(*, kept_too: bool = True) -> int:
    """Bytes of GPU memory that nobody holds. kept_too: what PyTorch only keeps for later is given back before."""
    if kept_too:
        torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])
