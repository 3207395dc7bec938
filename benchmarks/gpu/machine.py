"""The two ceilings of this GPU: bytes a second of a copy, operations a second of a matrix product.

    python -m benchmarks.gpu.machine [--out FOLDER]

Writes gpu-ceilings.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import harness
from benchmarks.gpu import stand_in, timing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.machine", description=__doc__)
    parser.add_argument("--out", type=Path, default=harness.RESULTS, help="folder for the result")
    parser.add_argument("--stand-in", action="store_true", help="on the CPU, with tiny inputs; measures nothing")
    options = parser.parse_args(arguments)
    if not stand_in.can_run(options.stand_in):
        return 2
    size = 8192 if not options.stand_in else 64
    a = torch.randn(size, size, dtype=torch.bfloat16, device=timing.DEVICE)
    rate = 2 * size**3 / (timing.by_events(lambda: a @ a) / 1e3)
    result = {
        "gpu": timing.gpu_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "nvidia_smi": _nvidia_smi(),
        "copy_gb_per_s": timing.bandwidth() / 1e9, "bf16_tflop_per_s": rate / 1e12,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu-ceilings.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


def _nvidia_smi() -> str:
    if shutil.which("nvidia-smi") is None:
        return "not installed"
    fields = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
