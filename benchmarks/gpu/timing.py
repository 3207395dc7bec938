"""Time on the GPU: median of repeated runs after a warm-up."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_L2_BYTES = 256 * 2**20  # more than any GPU's second-level cache
_WARM_UP = 10
DEVICE = "cuda"
Run = Callable[[], Any]


def by_events(run: Run, repeats: int = 50) -> float:
    """Milliseconds of GPU time, with other data in the L2 cache before each run, as in a whole network.

    The other data are read, not written: written lines would be stored while the run is timed.
    """
    other = torch.zeros(_L2_BYTES // 4, dtype=torch.int32, device=DEVICE)
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(repeats):
        other.max()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def by_clock(run: Run, repeats: int = 30) -> float:
    """Milliseconds until `run` returns; `run` must wait for the work that it starts on the GPU."""
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def graphed(run: Run) -> Run:
    """`run` as one CUDA graph, so that Python's kernel launches are not timed."""
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):  # compiles, and allocates once
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def bandwidth() -> float:
    """Bytes a second that a copy of 1 GiB reads and writes: measured, not from the data sheet."""
    source = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * 2**30 / (by_events(lambda: target.copy_(source)) / 1e3)


def gpu_name() -> str:
    """As CUDA names it."""
    return str(torch.cuda.get_device_name())


def free_memory(*, release_cache: bool = True) -> int:
    """Free bytes of GPU memory. release_cache: PyTorch's cached memory is released first."""
    if release_cache:
        torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])
