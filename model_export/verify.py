"""python model_export/verify.py weights/<model>: compare each runtime with PyTorch on images.

Exit codes: 0 all agree, 1 one does not, 2 nothing could be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
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


def run(folder: Path, frames: Sequence[UInt8Array], built: tuple[Path, PlanInfo] | None = None) -> int:
    """Compare the folder's ONNX file and a TensorRT engine with PyTorch, and print a table.

    frames: (H, W, 3) uint8 RGB. built: a plan and its description; None: those that fit this machine, if there are any.
    Returns 0 when all rows are within tolerance, else 1.
    """
    manifest = manifests.load(folder)
    reference = Reference(ServingModule(checkpoint.load(checkpoint_of(folder, manifest))), frames)
    path = manifests.verified_file(folder, manifest, "onnx")
    rows = compare(reference, OnnxRuntimeEngine(path), "fp32", [(1, *bucket) for bucket in manifest.input.buckets])
    try:
        engine, info = _engine(folder, manifest, built)
    except EngineUnavailable as error:
        if built is not None:
            raise
        sys.stdout.write(f"verify    no TensorRT engine to compare: {error}\n")
    else:
        sizes = [(n, *p.bucket) for p in info.profiles for n in {p.min_batch, p.max_batch}]
        with closing(engine):
            rows += compare(reference, engine, info.precision, sizes)
    sys.stdout.write(table(rows) + "\n")
    return 0 if all(row.within for row in rows) else 1


class Reference:
    """What PyTorch computes of frames, on the CPU in float32: each frame once at each size, since it takes seconds."""

    def __init__(self, module: ServingModule, frames: Sequence[UInt8Array]) -> None:
        """frames: (H, W, 3) uint8 RGB, of any sizes."""
        self._module = module
        self._frames = frames
        self._computed: dict[tuple[int, int, int], tuple[UInt8Array, UInt8Array, UInt8Array]] = {}

    def batch(self, count: int, height: int, width: int) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
        """`count` images (N, H, W, 3), the frames in turn; their class ids and confidences, both (N, H, W); uint8."""
        each = [self._frame(index % len(self._frames), height, width) for index in range(count)]
        images, ids, confidences = (np.stack(values) for values in zip(*each, strict=True))
        return images, ids, confidences

    def _frame(self, index: int, height: int, width: int) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
        key = index, height, width
        if key not in self._computed:
            image = parity.resized(self._frames[index], height, width).copy()  # PyTorch wants writable memory
            with torch.inference_mode():
                ids, logits = (value.numpy() for value in self._module(torch.from_numpy(image[None])))
            self._computed[key] = image, ids[0], confidence(logits, (height, width))[0]
        return self._computed[key]


def compare(reference: Reference, engine: Engine, precision: str, sizes: Sequence[tuple[int, int, int]]) -> list[Row]:
    """One row for each size, (N, H, W)."""
    return [_row(reference, engine, precision, size) for size in sizes]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    lines = [f"  {'runtime':24} {'(N, H, W)':18} {'pixels agreeing':>16} {'confidence error':>18}"]
    lines += [
        f"  {row.runtime:24} {row.shape!s:18} {row.agreeing:16.4%} {row.confidence_error:12.3f}/255"
        f"  {'ok' if row.within else 'FAILED'}"
        for row in rows
    ]
    return "\n".join(lines)


def _row(reference: Reference, engine: Engine, precision: str, size: tuple[int, int, int]) -> Row:
    images, ids, expected = reference.batch(*size)
    result = engine.infer(images, with_confidence=True)
    error = 255.0 if result.confidence is None else float(np.abs(result.confidence - expected.astype(float)).mean())
    return Row(engine.name, precision, size, float((result.ids == ids).mean()), error)


def _engine(folder: Path, manifest: Manifest, built: tuple[Path, PlanInfo] | None) -> tuple[TensorRtEngine, PlanInfo]:
    device = cuda.first_device()
    if built is None:
        built = library.find_plan(folder, device, manifest.files["onnx"].sha256, manifest.input.buckets)
    return TensorRtEngine(*built, device), built[1]


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
