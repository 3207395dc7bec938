"""A short table of what benchmarks/gpu/once.sh measured: python -m benchmarks.gpu.summary FOLDER."""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Print the outcome of each part, the kernel rows, the network rows and the accuracies of the training runs."""
    print((folder / "parts.txt").read_text())
    for path in sorted(folder.glob("gpu-*.json")):
        result: dict[str, Any] = json.loads(path.read_text())
        if "copy_gb_per_s" in result:
            print(f"{result['gpu']}: {result['copy_gb_per_s']:.0f} GB/s, {result['bf16_tflop_per_s']:.0f} TFLOP/s bf16")
        for key, row in result.get("kernel", {}).items():
            print(f"{key:66} {row['fused_ms']:8.4f} ms {row['speedup']:6.2f}x {row['of_limit']:6.1%}  {row['tactic']}")
        for key, row in result.get("network", {}).items():
            times = (
                "no measurement" if row["ms"] is None else f"{row['ms']:8.3f} ms {row['images_per_s']:9.1f} images/s"
            )
            print(f"{key:66} {times} {row['error']}")
    for run in ("held-out", "final"):
        log = folder / run / "log.csv"
        if log.is_file():
            print(f"training {run}: {log.read_text().strip().splitlines()[-1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
