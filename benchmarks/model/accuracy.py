"""Quality as served: python -m benchmarks.model.accuracy --root ../shared/camvid.

The shipped weights on CamVid val through PyTorch, through both runtimes of the CPU in float32, through a server of
float32 over HTTP, and through the quicker engines of fewer digits, where the processor has them.
Writes results/quality.json and draws docs/confusion.png.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import ROOT, report, serving
from service.engines.openvino.engine import computes_bf16
from training import evaluate
from training.evaluation.report import draw_confusion

MODEL: Final = "weights/alignseg-lite"  # as seen from the repository, where this is run
RUNTIMES: Final = ("pytorch", "onnxruntime-cpu", "openvino-cpu")
CLOSE: Final = 0.001  # of mIoU: what these may differ by
QUICK: Final = ("openvino-bf16", "openvino-int8")
GIVEN_UP: Final = 0.005  # of mIoU: what these may lose


def main() -> int:
    """Exit status 1 when the ways of float32 differ by more than CLOSE, or a quick one loses more than GIVEN_UP."""
    parser = argparse.ArgumentParser("python -m benchmarks.model.accuracy", description=__doc__)
    parser.add_argument("--root", default="../shared/camvid", help="folder of CamVid")
    root = parser.parse_args().root
    measured = [_measure(root, "--model", MODEL, "--engine", runtime) for runtime in RUNTIMES]
    with serving(
        [sys.executable, "-m", "alignseg_serve", "serve"], ALIGNSEG_PORT="0", ALIGNSEG_ENGINE=RUNTIMES[1]
    ) as server:
        measured.append(_measure(root, "--server", f"http://127.0.0.1:{server.port}"))
    draw_confusion(measured[0], ROOT / "docs" / "confusion.png")
    mious = [figures["miou"] for figures in measured]
    quick = [_measure(root, "--model", MODEL, "--engine", runtime) for runtime in QUICK if computes_bf16()]
    lost = max((mious[0] - figures["miou"] for figures in quick), default=0.0)
    version = json.loads(Path(MODEL, "model.json").read_text())["version"]
    told = {
        "command": "python -m benchmarks.model.accuracy",
        "weights": f"{MODEL} {version}",
        "largest_difference": round(max(mious) - min(mious), 5),
        "lost_by_quick_engines": round(lost, 5),
        "measured": [_short(figures) for figures in measured + quick],
    }
    report("quality", told)
    return int(max(mious) - min(mious) > CLOSE or lost > GIVEN_UP)


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != "confusion"}


def _measure(root: str, *how: str) -> dict[str, Any]:
    """What `alignseg evaluate` tells; it prints its table too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        if evaluate.main([*how, "--root", root, "--json", str(path)]):
            raise SystemExit(f"alignseg evaluate {' '.join(how)} failed")
        figures: dict[str, Any] = json.loads(path.read_text())
        return figures


if __name__ == "__main__":
    sys.exit(main())
