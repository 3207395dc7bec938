"""Runs the GPU benchmarks on a CPU with tiny inputs: every row and every import, without a measurement of any worth."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu import timing


def can_run(with_stand_in: bool) -> bool:
    """Install the stand-in if it is requested. Otherwise return whether there is a GPU, and say so if there is none."""
    if with_stand_in:
        install()
    elif not torch.cuda.is_available():
        print("No NVIDIA GPU, or a PyTorch without CUDA: nothing was measured.", file=sys.stderr)
        return False
    return True


def install() -> None:
    """Replace the device, the timers and the sizes. The kernels need TRITON_INTERPRET=1."""
    timing.DEVICE = "cpu"
    timing.by_events = timing.by_clock = _once
    timing.graphed = lambda run: run
    timing.bandwidth = lambda: 1e9
    timing.free_memory = lambda **_: 2**30
    timing.gpu_name = lambda: "stand-in"
    from benchmarks.gpu import kernel, network  # noqa: PLC0415 - after the timers are replaced

    kernel.AGGREGATES = ((8, (4, 6), (2, 3)),)
    kernel.ARGMAXES = ((3, (4, 6), (8, 12)),)
    kernel.FORMATS = kernel.FORMATS[:2]
    network.MODELS = dict.fromkeys(network.MODELS, 4)  # channels: the interpreter is slow
    network.ONCE = tuple((backbone, (33, 49), runtime) for backbone, _, runtime in network.ONCE)
    network.BATCH = 2


def _once(run: Callable[[], Any], repeats: int = 1) -> float:
    run()
    return 1.0
