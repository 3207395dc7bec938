"""Kernels and networks on this GPU: prints both tables and writes benchmarks/results/gpu-<name>.json.

    python -m benchmarks.gpu [--only kernel] [--match resnet18 360x480]       (make bench-gpu)

Each row is written when it is measured, and rows of earlier runs stay: hours of measuring can be split.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness
from benchmarks.gpu import stand_in, timing

Rows = Iterator[tuple[str, Callable[[], Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("kernel", "network"), help="one of the two tables")
    parser.add_argument("--once", action="store_true", help="of the networks only what fits into minutes")
    parser.add_argument("--out", type=Path, default=harness.RESULTS, help="folder for the result")
    parser.add_argument("--stand-in", action="store_true", help="on the CPU, with tiny inputs; measures nothing")
    parser.add_argument("--match", nargs="+", default=[], help="only rows with all of these: resnet18 360x480 fused")
    options = parser.parse_args(arguments)
    if not stand_in.can_run(options.stand_in):
        return 2
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, in every runtime
    for table in ("kernel", "network"):
        if options.only in {None, table}:
            measure(table, [text.lower() for text in options.match], options.out, once=options.once)
    return 0


def measure(table: str, match: Sequence[str], folder: Path = harness.RESULTS, once: bool = False) -> None:
    """Measure the rows whose names contain all of `match`; print and write each."""
    about = machine()
    path = folder / f"gpu-{re.sub(r'[^a-z0-9]+', '-', about['gpu'].lower()).strip('-')}.json"
    folder.mkdir(parents=True, exist_ok=True)
    for key, row in _rows(table, once):
        if all(text in key.lower() for text in match):
            measured = asdict(row())
            result = json.loads(path.read_text()) if path.is_file() else {}
            result |= about
            result.setdefault(table, {})[key] = measured
            path.write_text(json.dumps(result, indent=2) + "\n")
            show(measured)
    print(f"written {path}")


def _rows(table: str, once: bool = False) -> Rows:
    from benchmarks.gpu import kernel, network  # noqa: PLC0415 - Triton only where there is a GPU

    if table == "network":
        yield from network.once() if once else network.rows()
        return
    bandwidth = timing.bandwidth()
    print(f"memory bandwidth of a copy: {bandwidth / 1e9:.0f} GB/s")
    for key, row in kernel.rows():
        yield key, partial(row, bandwidth)


def machine() -> dict[str, Any]:
    """Describe the machine, the GPU and the runtimes."""
    packages = ("torch", "triton", "tensorrt", "tensorrt-cu13", "onnxruntime-gpu")
    gpu = {"command": "python -m benchmarks.gpu", "gpu": timing.gpu_name(), "cuda": torch.version.cuda}
    return {**gpu, "machine": harness.machine(packages)}


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    cells = (f"{value:10.3f}" if isinstance(value, float) else f"{value!s:26}" for value in row.values())
    print(" ".join(cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
