"""python model_export/verify.py weights/<model>: does each runtime compute what PyTorch does? Exit 1: no."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from model_export import checkpoint, export_command, parity
from model_export.model_folder import checkpoint_of
from model_export.serving_module import ServingModule
from service import manifest as manifests
from service.contracts import Engine, UInt8Array
from service.engines import cuda_runtime, plan, tensorrt, tensorrt_library
from service.engines.confidence import confidence
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.engines.plan import PlanInfo
from service.errors import AlignSegError, EngineUnavailable
from service.manifest import Manifest

# Share of pixels of PyTorch's class, and mean difference of confidence in steps of 1/255. Where two classes are equally
# likely, the last digit decides: half types have three of them (fp16) or two (bf16).
AGREEING: Final = {"fp32": 0.9995, "fp16": 0.997, "bf16": 0.985, "int8": 0.96, "fp8": 0.98}
CONFIDENCE: Final = {"fp32": 0.05, "fp16": 0.5, "bf16": 3.0, "int8": 8.0, "fp8": 5.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One runtime at one size. shape: (N, H, W)."""

    runtime: str
    precision: str
    shape: tuple[int, int, int]
    agreeing: float
    confidence_error: float

    @property
    def within(self) -> bool:
        """Whether both figures are within the precision's tolerance."""
        return self.agreeing >= AGREEING[self.precision] and self.confidence_error <= CONFIDENCE[self.precision]


def run(folder: Path, frames: Sequence[UInt8Array], built: Path | None = None) -> int:
    """Print the table for the folder's ONNX and for the plan `built`, or else the one that fits this machine.

    frames: (H, W, 3) uint8 RGB. Returns 0, or 1 on a breach.
    """
    manifest = manifests.load(folder)
    module = ServingModule(checkpoint.load(checkpoint_of(folder, manifest)))
    path = manifests.verified_file(folder, manifest, "onnx")
    rows = compare(module, OnnxRuntimeEngine(path), "fp32", [(1, *bucket) for bucket in manifest.input.buckets], frames)
    try:
        engine, info = _engine(folder, manifest, built)
    except EngineUnavailable as error:
        sys.stdout.write(f"verify    no TensorRT engine is compared: {error}\n")
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
    """A row a size. module: PyTorch's side, on the CPU in float32. sizes: (N, H, W)."""
    return [_row(module, engine, precision, size, frames) for size in sizes]


def table(rows: Sequence[Row]) -> str:
    """The figures, a line a row."""
    lines = [f"  {'runtime':24} {'(N, H, W)':18} {'pixels agreeing':>16} {'confidence off by':>18}"]
    lines += [
        f"  {row.runtime:24} {row.shape!s:18} {row.agreeing:16.4%} {row.confidence_error:12.3f}/255"
        f"  {'ok' if row.within else 'BREACH'}"
        for row in rows
    ]
    return "\n".join(lines)


def _row(
    module: ServingModule, engine: Engine, precision: str, size: tuple[int, int, int], frames: Sequence[UInt8Array]
) -> Row:
    count, height, width = size
    pictures = np.stack([parity.resized(frames[index % len(frames)], height, width) for index in range(count)])
    with torch.inference_mode():
        expected, logits = (value.numpy() for value in module(torch.from_numpy(pictures)))
    result = engine.infer(pictures, with_confidence=True)
    sure = confidence(logits, (height, width))
    off = 255.0 if result.confidence is None else float(np.abs(result.confidence.astype(float) - sure).mean())
    return Row(engine.name, precision, size, float((result.ids == expected).mean()), off)


def _engine(folder: Path, manifest: Manifest, path: Path | None) -> tuple[tensorrt.TensorRtEngine, PlanInfo]:
    device = cuda_runtime.first_device()
    if path is None:
        here = tensorrt_library.machine(device)
        path, info = plan.find(folder, here, manifest.files["onnx"].sha256, manifest.input.buckets)
    else:
        info = PlanInfo.model_validate_json(path.with_suffix(".json").read_bytes())
    return tensorrt.TensorRtEngine(path, info, device), info


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all agree, 1 a breach, 2 nothing could be compared."""
    parser = argparse.ArgumentParser(
        prog="verify.py", description="Compare each runtime with PyTorch on real pictures."
    )
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--frames", type=Path, help="a picture or a folder of them; default: the demo scene")
    options = parser.parse_args(arguments)
    try:
        return run(options.folder, export_command.read_frames(options.frames))
    except (AlignSegError, FileNotFoundError, checkpoint.CheckpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
