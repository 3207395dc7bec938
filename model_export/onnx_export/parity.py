"""Compares a runtime numerically with PyTorch. No export is written without this comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnx import ModelProto
from PIL import Image

from model_export.onnx_export.serving_module import ServingModule
from service.imaging.decode import decode_file
from service.types import CLASS_MAP, LOGITS, PICTURES, UInt8Array

# (N, H, W): a usual size, odd sizes, batches, and one whose map at 1/32 is smaller than AlignCM's 3x3 pooling.
SHAPES = ((1, 360, 480), (2, 360, 480), (1, 363, 485), (3, 96, 130), (1, 33, 65), (1, 480, 360))
PIXELS_AGREEING = 0.9995
LOGITS_TOLERANCE = 1e-3
# After a hundred layers about five digits of float32 are exact, so logits of some hundreds can't agree to 1e-3.
RELATIVE_TOLERANCE = 1e-5

FloatArray = npt.NDArray[np.float32]
Outputs = tuple[UInt8Array, FloatArray]  # class map, logits
Runtime = Callable[[UInt8Array], Outputs]


class ParityError(Exception):
    """A runtime's results differ from PyTorch's; the message contains the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """The comparison at one shape, (N, H, W).

    agreeing: share of pixels with PyTorch's class.
    logits_error: largest absolute difference; logits_scale: largest absolute logit.
    """

    shape: tuple[int, int, int]
    agreeing: float
    logits_error: float
    logits_scale: float

    @property
    def within(self) -> bool:
        """Whether all values are within tolerance."""
        tolerance = max(LOGITS_TOLERANCE, RELATIVE_TOLERANCE * self.logits_scale)
        return self.agreeing >= PIXELS_AGREEING and self.logits_error <= tolerance


def onnx_runtime(model: ModelProto) -> Runtime:
    """Load a model into ONNX Runtime on the CPU. Returns a function from images to (class_map, logits).

    Raises ParityError when ONNX Runtime can't load it.
    """
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ParityError(f"ONNX Runtime {onnxruntime.__version__} can't load the exported model: {error}") from error

    def run(images: UInt8Array) -> Outputs:
        class_map, logits = session.run([CLASS_MAP, LOGITS], {PICTURES: images})
        return class_map, logits

    return run


def compare(module: ServingModule, runtime: Runtime, frames: Sequence[UInt8Array]) -> list[Row]:
    """Run both on `frames`, (H, W, 3) uint8 RGB, resized to each of SHAPES. Raises ValueError without frames."""
    if not frames:
        raise ValueError("got no images; expected at least one to compare on")
    return [_compare_at(module, runtime, frames, shape) for shape in SHAPES]


def require(rows: Sequence[Row]) -> None:
    """Raises ParityError if a row is outside tolerance."""
    if not all(row.within for row in rows):
        raise ParityError(
            f"the exported model differs from PyTorch, so nothing was written. Expected at least {PIXELS_AGREEING:.2%} "
            f"of the pixels with the same class and logits within {LOGITS_TOLERANCE}:\n{table(rows)}"
        )


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    lines = [
        f"  {row.shape!s:16} pixels {row.agreeing:9.4%}"
        f"  logits {row.logits_error:.1e} of {row.logits_scale:.0f}  {'ok' if row.within else 'FAILED'}"
        for row in rows
    ]
    return "\n".join(lines)


def _compare_at(
    module: ServingModule, runtime: Runtime, frames: Sequence[UInt8Array], shape: tuple[int, int, int]
) -> Row:
    count, height, width = shape
    images = np.stack([resized(frames[index % len(frames)], height, width) for index in range(count)])
    with torch.inference_mode():
        expected_map, expected_logits = (x.numpy() for x in module(torch.from_numpy(images)))
    if not np.isfinite(expected_logits).all():
        raise ParityError(
            f"PyTorch itself computes NaN or infinite scores at {shape}, so nothing was written: the checkpoint's "
            "weights are too large or damaged, not the export. Use another checkpoint."
        )
    class_map, logits = runtime(images)
    return Row(
        shape,
        agreeing=float((class_map == expected_map).mean()),
        logits_error=float(np.abs(logits - expected_logits).max()),
        logits_scale=float(np.abs(expected_logits).max()),
    )


def read_image(path: Path) -> UInt8Array:
    """Read an image file as (H, W, 3) uint8 RGB, as the server reads it. Raises OSError or RequestError."""
    return decode_file(path)


def resized(frame: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize an image, (H, W, 3) uint8 RGB, bilinearly."""
    image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
