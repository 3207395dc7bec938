"""python -m benchmarks.model.gpu (make bench-gpu): print both tables and write benchmarks/results/gpu-<name>.json.

Each row is written as it is measured, and rows of earlier runs stay: what takes hours can be done in parts.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parents[2] / "results"
Rows = Iterator[tuple[str, Callable[[], Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.model.gpu", description=__doc__)
    parser.add_argument("--only", choices=("kernel", "network"), help="one of the two tables")
    parser.add_argument("--match", nargs="+", default=[], help="rows with all of these, e.g. resnet18 360x480 fused")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here, or a PyTorch without CUDA: nothing was measured", file=sys.stderr)
        return 2
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, in every runtime
    for table in ("kernel", "network"):
        if options.only in {None, table}:
            measure(table, [text.lower() for text in options.match])
    return 0


def measure(table: str, match: Sequence[str]) -> None:
    """Measure the rows whose names hold all of `match`, printing and writing each."""
    about = machine()
    path = RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', about['gpu'].lower()).strip('-')}.json"
    path.parent.mkdir(exist_ok=True)
    for key, row in _rows(table):
        if all(text in key.lower() for text in match):
            measured = asdict(row())
            result = json.loads(path.read_text()) if path.is_file() else {}
            result |= about
            result.setdefault(table, {})[key] = measured
            path.write_text(json.dumps(result, indent=2) + "\n")
            show(measured)
    print(f"written {path}")


def _rows(table: str) -> Rows:
    from benchmarks.model.gpu import kernel, network, timing  # noqa: PLC0415 - Triton only where there is a GPU

    if table == "network":
        yield from network.rows()
        return
    bandwidth = timing.bandwidth()
    print(f"a copy moves {bandwidth / 1e9:.0f} GB/s")
    for key, row in kernel.rows():
        yield key, partial(row, bandwidth)


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "command": "python -m benchmarks.model.gpu", "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    } | {name: _version(name) for name in ("triton", "tensorrt", "onnxruntime-gpu")}  # fmt: skip


def _version(package: str) -> str | None:
    """TensorRT's package is named after its CUDA."""
    for name in (package, f"{package}-cu13"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def show(row: dict[str, Any]) -> None:
    """Print a row as it comes: the whole takes long."""
    told = (f"{value:10.3f}" if isinstance(value, float) else f"{value!s:26}" for value in row.values())
    print(" ".join(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
