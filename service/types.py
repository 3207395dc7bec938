"""Types and names that the service's packages share: standard library and NumPy only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

# Names of the network's input and outputs in ONNX files, in engines and in the Open Inference Protocol.
PICTURES: Final = "pictures"
CLASS_MAP: Final = "class_map"
LOGITS: Final = "logits"

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)


def parse_size(text: str, form: str = "HEIGHTxWIDTH", *, name: str = "") -> tuple[int, int]:
    """Two positive integers with an x between them, in the order of the text.

    form, name: what is expected and the option it is for, for the error message. Raises ValueError.
    """
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text, re.ASCII)
    if match is None:
        option = f"{name}: " if name else ""
        raise ValueError(f"{option}got {text!r}; expected {form}, such as 361x481")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image resized and padded to a bucket, with what is needed to undo that.

    pixels: (H, W, 3) uint8 RGB, C-contiguous; H and W are the bucket's.
    content: (height, width) of the image inside the bucket, from the top left corner; the rest is padding.
    original: (height, width) of the image as the user sees it, after EXIF orientation.
    """

    pixels: UInt8Array
    content: Size
    original: Size

    @property
    def bucket(self) -> Size:
        """(H, W) of the tensor; only images of one bucket share a batch."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True)
class Inference:
    """An engine's output for one batch.

    ids: (N, H, W) uint8 class ids.
    confidence: (N, H, W) uint8, the softmax probability of the chosen class times 255, rounded; None if not requested.
    """

    ids: UInt8Array
    confidence: UInt8Array | None = None


class Engine(Protocol):
    """A runtime with one model loaded. Called from one thread at a time.

    name: runtime and device as users know them, e.g. "onnxruntime-cpu".
    max_batch: the largest N that `infer` takes.
    has_confidence: whether the model has the logits; only then may with_confidence be true.
    """

    name: str
    max_batch: int
    has_confidence: bool

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N images of one size.

        batch: (N, H, W, 3) uint8 RGB, C-contiguous, 1 <= N <= max_batch.
        with_confidence: compute the confidence too; when false, it must cost nothing.
        Raises EngineError when the runtime fails.
        """
        ...

    def close(self) -> None:
        """Release the device's memory. Idempotent."""
        ...


class Classes(Protocol):
    """Names and colours of a model's classes."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each class id, in order."""
        ...

    @property
    def palette(self) -> UInt8Array:
        """(num_classes, 3) uint8 RGB colours."""
        ...
