"""What the rooms of the service hand to each other: stdlib and numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A picture laid into one shape bucket, with the way back to its own size.

    pixels: (H, W, 3) uint8 RGB, contiguous; H and W are the bucket's.
    content: (height, width) of the picture inside the bucket, from the top left corner; the rest is padding.
    original: (height, width) of the picture as the user sees it, after EXIF orientation.
    """

    pixels: UInt8Array
    content: tuple[int, int]
    original: tuple[int, int]

    @property
    def bucket(self) -> tuple[int, int]:
        """(H, W) of the tensor; only pictures of one bucket share a batch."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """ids: (height, width) uint8 class ids at the picture's own size."""

    ids: UInt8Array


@dataclass(frozen=True, slots=True)
class Inference:
    """What an engine says of a batch.

    ids: (N, H, W) uint8 class ids.
    confidence: (N, H, W) uint8, the softmax probability of the chosen class times 255, rounded; None when not asked.
    """

    ids: UInt8Array
    confidence: UInt8Array | None = None


class Engine(Protocol):
    """A runtime with one model loaded. Called from one thread at a time.

    name: runtime and device as users know them, e.g. "onnxruntime-cpu".
    max_batch: the largest N that `infer` takes.
    has_confidence: whether the model has the output; only then may `infer` be asked for it.
    """

    name: str
    max_batch: int
    has_confidence: bool

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures of one size.

        batch: (N, H, W, 3) uint8 RGB, C-contiguous, 1 <= N <= max_batch.
        with_confidence: whether to compute that too; without, it must cost nothing.
        Raises EngineError when the runtime fails.
        """
        ...

    def close(self) -> None:
        """Release the device's memory. Idempotent."""
        ...


class Classes(Protocol):
    """What encoders need to know of a model's classes."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each class id, in order."""
        ...

    @property
    def palette(self) -> UInt8Array:
        """(num_classes, 3) uint8 RGB colours."""
        ...
