"""python -m benchmarks.gpu: print both tables and write benchmarks/results/gpu-<name>.json."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", choices=("kernel", "network"), help="one of the two tables")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here, or a PyTorch without CUDA: nothing was measured", file=sys.stderr)
        return 2
    from benchmarks.gpu import kernel, network  # noqa: PLC0415 - Triton only where there is a GPU

    result: dict[str, Any] = machine()
    tables: dict[str, Iterator[Any]] = {"kernel": kernel.rows(), "network": network.rows()}
    for name, rows in tables.items():
        if options.only in {None, name}:
            result[name] = [show(asdict(row)) for row in rows]
    path = RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', result['gpu'].lower()).strip('-')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written {path}")
    return 0


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def show(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row as it comes: the whole takes minutes."""
    told = (f"{value:10.3f}" if isinstance(value, float) else f"{value!s:26}" for value in row.values())
    print(" ".join(told), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
