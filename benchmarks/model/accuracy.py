"""mIoU of the shipped weights on CamVid val, through every runtime and over HTTP.

    python -m benchmarks.model.accuracy --root ../shared/camvid

PyTorch, both CPU runtimes in float32, a float32 server over HTTP; bf16 and int8 where the processor has bfloat16.
Writes results/accuracy.json and draws docs/confusion.png.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import ROOT, report, serving
from service.engines.openvino.engine import features
from training import evaluate
from training.evaluation.report import draw_confusion

MODEL: Final = "weights/alignseg-lite"  # relative to the repository, where this is run
RUNTIMES: Final = ("pytorch", "onnxruntime-cpu", "openvino-cpu")
MAX_DIFFERENCE: Final = 0.001  # of mIoU, between these
REDUCED: Final = ("openvino-bf16", "openvino-int8")
MAX_LOSS: Final = 0.005  # of mIoU, of these


def main() -> int:
    """Exit code 1 when float32 differs by more than MAX_DIFFERENCE, or another loses more than MAX_LOSS."""
    parser = argparse.ArgumentParser("python -m benchmarks.model.accuracy", description=__doc__)
    parser.add_argument("--root", default="../shared/camvid", help="folder of CamVid")
    root = parser.parse_args().root
    measured = [_measure(root, "--model", MODEL, "--engine", runtime) for runtime in RUNTIMES]
    with serving(
        [sys.executable, "-m", "alignseg_serve", "serve"], ALIGNSEG_PORT="0", ALIGNSEG_ENGINE=RUNTIMES[1]
    ) as server:
        measured.append(_measure(root, "--server", f"http://127.0.0.1:{server.port}"))
    draw_confusion(measured[0], ROOT / "docs" / "confusion.png")
    mious = [result["miou"] for result in measured]
    usable = [runtime for runtime in REDUCED if runtime != "openvino-bf16" or features().bfloat16]
    reduced = [_measure(root, "--model", MODEL, "--engine", runtime) for runtime in usable]
    loss = max((mious[0] - result["miou"] for result in reduced), default=0.0)
    version = json.loads(Path(MODEL, "model.json").read_text())["version"]
    results = {
        "command": "python -m benchmarks.model.accuracy",
        "weights": f"{MODEL} {version}",
        "largest_difference": round(max(mious) - min(mious), 5),
        "lost_by_bf16_and_int8": round(loss, 5),
        "measured": [_without_confusion(result) for result in measured + reduced],
    }
    report("accuracy", results)
    return int(max(mious) - min(mious) > MAX_DIFFERENCE or loss > MAX_LOSS)


def _without_confusion(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "confusion"}


def _measure(root: str, *target: str) -> dict[str, Any]:
    """Run `alignseg evaluate`, which also prints its table, and return its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        if evaluate.main([*target, "--root", root, "--json", str(path)]):
            raise SystemExit(f"alignseg evaluate {' '.join(target)} failed")
        result: dict[str, Any] = json.loads(path.read_text())
        return result


if __name__ == "__main__":
    sys.exit(main())
