"""python model_export/verify.py weights/<model>: compare each runtime with PyTorch on images.

Exit codes: 0 all agree, 1 one does not, 2 nothing could be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

try:
    import numpy as np
    import torch

    from model_export import export
    from model_export.checkpoints import checkpoint
    from model_export.model_folder.writer import checkpoint_of
    from model_export.onnx_export import parity
    from model_export.onnx_export.serving_module import ServingModule
    from service.engines import cuda
    from service.engines.confidence import confidence
    from service.engines.onnxruntime.engine import OnnxRuntimeEngine
    from service.engines.tensorrt import library
    from service.engines.tensorrt.engine import TensorRtEngine
    from service.errors import AlignSegError, EngineUnavailable
    from service.model_folder import engine_plan
    from service.model_folder import manifest as manifests
    from service.model_folder.engine_plan import PlanInfo
    from service.model_folder.manifest import Manifest
    from service.types import Engine, UInt8Array
except ImportError as missing:
    if __name__ != "__main__":
        raise
    sys.stderr.write(f"error: {missing}. Comparing needs ONNX and PyTorch: pip install -e '.[export]'\n")
    raise SystemExit(2) from None

# Share of pixels with PyTorch's class, and mean difference of confidence in steps of 1/255. Where two classes are about
# equally likely, the last digit decides; half types have three digits (fp16) or two (bf16).
AGREEING: Final = {"fp32": 0.9995, "fp16": 0.997, "bf16": 0.985, "int8": 0.96, "fp8": 0.98}
CONFIDENCE: Final = {"fp32": 0.05, "fp16": 0.5, "bf16": 3.0, "int8": 8.0, "fp8": 5.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One runtime at one size.

    shape: (N, H, W). agreeing: share of pixels with PyTorch's class. confidence_error: mean difference in 1/255.
    """

    runtime: str
    precision: str
    shape: tuple[int, int, int]
    agreeing: float
    confidence_error: float

    @property
    def within(self) -> bool:
        """Whether both values are within the precision's tolerance."""
        return self.agreeing >= AGREEING[self.precision] and self.confidence_error <= CONFIDENCE[self.precision]


def run(folder: Path, frames: Sequence[UInt8Array], built: Path | None = None) -> int:
    """Compare the folder's ONNX file and a TensorRT engine with PyTorch, and print a table.

    frames: (H, W, 3) uint8 RGB. built: the engine's plan; None: the one that fits this machine, if there is one.
    Returns 0 when all rows are within tolerance, else 1.
    """
    manifest = manifests.load(folder)
    module = ServingModule(checkpoint.load(checkpoint_of(folder, manifest)))
    path = manifests.verified_file(folder, manifest, "onnx")
    rows = compare(module, OnnxRuntimeEngine(path), "fp32", [(1, *bucket) for bucket in manifest.input.buckets], frames)
    try:
        engine, info = _engine(folder, manifest, built)
    except EngineUnavailable as error:
        sys.stdout.write(f"verify    no TensorRT engine to compare: {error}\n")
    else:
        sizes = [(n, *p.bucket) for p in info.profiles for n in {p.min_batch, p.max_batch}]
        rows += compare(module, engine, info.precision, sizes, frames)
        engine.close()
    sys.stdout.write(table(rows) + "\n")
    return 0 if all(row.within for row in rows) else 1


def compare(
    module: ServingModule, engine: Engine, precision: str, sizes: Sequence[tuple[int, int, int]],
    frames: Sequence[UInt8Array],
) -> list[Row]:  # fmt: skip
    """One row for each size. module: the PyTorch reference, on the CPU in float32. sizes: (N, H, W)."""
    return [_row(module, engine, precision, size, frames) for size in sizes]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    lines = [f"  {'runtime':24} {'(N, H, W)':18} {'pixels agreeing':>16} {'confidence error':>18}"]
    lines += [
        f"  {row.runtime:24} {row.shape!s:18} {row.agreeing:16.4%} {row.confidence_error:12.3f}/255"
        f"  {'ok' if row.within else 'FAILED'}"
        for row in rows
    ]
    return "\n".join(lines)


def _row(
    module: ServingModule, engine: Engine, precision: str, size: tuple[int, int, int], frames: Sequence[UInt8Array]
) -> Row:
    count, height, width = size
    images = np.stack([parity.resized(frames[index % len(frames)], height, width) for index in range(count)])
    with torch.inference_mode():
        expected, logits = (value.numpy() for value in module(torch.from_numpy(images)))
    result = engine.infer(images, with_confidence=True)
    expected_confidence = confidence(logits, (height, width)).astype(float)
    error = 255.0 if result.confidence is None else float(np.abs(result.confidence - expected_confidence).mean())
    return Row(engine.name, precision, size, float((result.ids == expected).mean()), error)


def _engine(folder: Path, manifest: Manifest, path: Path | None) -> tuple[TensorRtEngine, PlanInfo]:
    device = cuda.first_device()
    if path is None:
        machine = library.machine(device)
        path, info = engine_plan.find(folder, machine, manifest.files["onnx"].sha256, manifest.input.buckets)
    else:
        info = PlanInfo.model_validate_json(path.with_suffix(".json").read_bytes())
    return TensorRtEngine(path, info, device), info


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Compare each runtime with PyTorch on images.")
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--frames", type=Path, help="image or folder to compare on; default: the demo scene")
    options = parser.parse_args(arguments)
    try:
        return run(options.folder, export.read_frames(options.frames))
    except (AlignSegError, FileNotFoundError, checkpoint.CheckpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
