"""Runs a batch on an engine and returns an outcome for each image, so that a bad image fails alone.

A batch that fails is retried in parts. After an out-of-memory error in halves, these in halves again, down to single
images. After any other error one image at a time, once.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from service.errors import DeviceLost, EngineError, EngineOutOfMemory
from service.observers import never_raises
from service.types import Engine, Inference, UInt8Array

log = logging.getLogger("alignseg.engine")
Outcome = Inference | EngineError  # of one image: the arrays are (H, W)
OnCall = Callable[[int, EngineError | None], object]  # called after each engine call: batch size, and its error if any


def _ignore(size: int, error: EngineError | None) -> None:
    """The default `on_call`."""


class FaultIsolatingEngine:
    """An engine whose failures are outcomes.

    lost: the error after which the engine is unusable until the process restarts; None while it is usable.
    last_error: the error of the latest call; None once a call succeeds.
    """

    def __init__(self, engine: Engine, on_call: OnCall = _ignore) -> None:
        self.lost: DeviceLost | None = None
        self.last_error: EngineError | None = None
        self._engine = engine
        self._on_call = never_raises(on_call)  # a metric that fails is no reason to lose an engine

    def infer(self, images: Sequence[UInt8Array], with_confidence: bool) -> Sequence[Outcome]:
        """Return one outcome per image. images: (H, W, 3) uint8 RGB, all of one size."""
        if self.lost is not None:
            return [self.lost] * len(images)
        try:
            inference = self._call(images, with_confidence)
        except DeviceLost as error:
            self.lost = error
            return [error] * len(images)
        except EngineError as error:
            log.warning("Batch of %d images failed: %s", len(images), error)
            return [error] if len(images) == 1 else self._retry_in_parts(images, with_confidence, error)
        confidence = inference.confidence if with_confidence else None
        confidences = [None] * len(images) if confidence is None else list(confidence)
        return [Inference(*maps) for maps in zip(inference.ids, confidences, strict=True)]

    def _retry_in_parts(
        self, images: Sequence[UInt8Array], with_confidence: bool, error: EngineError
    ) -> Sequence[Outcome]:
        step = len(images) // 2 if isinstance(error, EngineOutOfMemory) else 1
        parts = (images[i : i + step] for i in range(0, len(images), step))
        return [outcome for part in parts for outcome in self.infer(part, with_confidence)]

    def _call(self, images: Sequence[UInt8Array], with_confidence: bool) -> Inference:
        """Return the engine's output if shape and dtype are right. Raises EngineError for every failure."""
        try:
            batch = images[0][None] if len(images) == 1 else np.stack(images)  # a single image is not copied
            inference = self._engine.infer(batch, with_confidence)
            for output in (inference.ids, *([inference.confidence] if with_confidence else [])):
                _check_output(self._engine.name, output, batch.shape[:3])
        except Exception as raised:
            self.last_error = error = _as_engine_error(self._engine.name, raised)
            self._on_call(len(images), error)
            raise error from (None if error is raised else raised)
        self.last_error = None
        self._on_call(len(images), None)
        return inference


def _as_engine_error(engine: str, raised: Exception) -> EngineError:
    if isinstance(raised, EngineError):
        return raised
    if isinstance(raised, MemoryError):
        return EngineOutOfMemory(f"{engine} ran out of memory: {raised}")
    return EngineError(f"{engine} failed: {raised!r}")


def _check_output(engine: str, output: UInt8Array | None, shape: tuple[int, ...]) -> None:
    if output is None or output.shape != shape or output.dtype != np.uint8:
        received = "None" if output is None else f"{output.dtype} {output.shape}"
        raise EngineError(f"{engine} returned {received}, expected uint8 {shape}.")
