"""Does a runtime compute what PyTorch computes? An export that was not compared numerically did not happen."""

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
from service.types import CLASS_MAP, LOGITS, PICTURES, UInt8Array

# (N, H, W): the served size, odd sizes, smaller than a region of AlignCM's pooling at 1/32, batches.
SHAPES = ((1, 360, 480), (2, 360, 480), (1, 363, 485), (3, 96, 130), (1, 33, 65), (1, 480, 360))
PIXELS_AGREEING = 0.9995
LOGITS_TOLERANCE = 1e-3
# float32 keeps about five digits through a hundred layers, so logits of hundreds cannot agree to 1e-3.
RELATIVE_TOLERANCE = 1e-5

FloatArray = npt.NDArray[np.float32]
Outputs = tuple[UInt8Array, FloatArray]  # class map, logits
Runtime = Callable[[UInt8Array], Outputs]


class ParityError(Exception):
    """A runtime's results are not PyTorch's; the message holds the figures."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    agreeing: share of pixels of equal class.
    logits_error: largest absolute difference; logits_scale: largest absolute logit.
    """

    shape: tuple[int, int, int]
    agreeing: float
    logits_error: float
    logits_scale: float

    @property
    def within(self) -> bool:
        """Whether all figures are within tolerance."""
        tolerance = max(LOGITS_TOLERANCE, RELATIVE_TOLERANCE * self.logits_scale)
        return self.agreeing >= PIXELS_AGREEING and self.logits_error <= tolerance


def onnx_runtime(model: ModelProto) -> Runtime:
    """A model that returns (class_map, logits), on the CPU by ONNX Runtime.

    Raises ParityError when ONNX Runtime does not load it.
    """
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status
        raise ParityError(f"ONNX Runtime {onnxruntime.__version__} does not load the export: {error}") from error

    def run(pictures: UInt8Array) -> Outputs:
        class_map, logits = session.run([CLASS_MAP, LOGITS], {PICTURES: pictures})
        return class_map, logits

    return run


def compare(module: ServingModule, runtime: Runtime, frames: Sequence[UInt8Array]) -> list[Row]:
    """Run both on `frames`, (H, W, 3) uint8 RGB, resized to each of SHAPES."""
    if not frames:
        raise ValueError("parity is measured on pictures; got none")
    return [_compare_at(module, runtime, frames, shape) for shape in SHAPES]


def require(rows: Sequence[Row]) -> None:
    """Raises ParityError if any row is out of tolerance."""
    if not all(row.within for row in rows):
        raise ParityError(
            f"the export does not compute what PyTorch computes (expected at least {PIXELS_AGREEING:.2%} of pixels and "
            f"logits within {LOGITS_TOLERANCE}):\n{table(rows)}"
        )


def table(rows: Sequence[Row]) -> str:
    """The figures, a line a shape."""
    lines = [
        f"  {row.shape!s:16} pixels {row.agreeing:9.4%}"
        f"  logits {row.logits_error:.1e} of {row.logits_scale:.0f}  {'ok' if row.within else 'BREACH'}"
        for row in rows
    ]
    return "\n".join(lines)


def _compare_at(
    module: ServingModule, runtime: Runtime, frames: Sequence[UInt8Array], shape: tuple[int, int, int]
) -> Row:
    count, height, width = shape
    pictures = np.stack([resized(frames[index % len(frames)], height, width) for index in range(count)])
    with torch.inference_mode():
        expected_map, expected_logits = (x.numpy() for x in module(torch.from_numpy(pictures)))
    class_map, logits = runtime(pictures)
    return Row(
        shape,
        agreeing=float((class_map == expected_map).mean()),
        logits_error=float(np.abs(logits - expected_logits).max()),
        logits_scale=float(np.abs(expected_logits).max()),
    )


def read_picture(path: Path) -> UInt8Array:
    """Read a picture file as (H, W, 3) uint8 RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def resized(frame: UInt8Array, height: int, width: int) -> UInt8Array:
    """A picture, (H, W, 3) uint8 RGB, at another size."""
    image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
