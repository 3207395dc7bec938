"""Ask an engine for a batch and get an outcome for each picture, whatever the engine does.

A batch that fails is tried again in parts. For want of memory in halves, these in halves again, down to one picture;
after any other failure picture by picture, once: it may be the fault of one, whose neighbours must not fail with it.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from service.errors import DeviceLost, EngineError, EngineOutOfMemory
from service.types import Engine, Inference, UInt8Array

log = logging.getLogger("alignseg.engine")
Outcome = Inference | EngineError  # of one picture: its arrays are (H, W)
OnCall = Callable[[int, EngineError | None], object]  # size of a batch, and what it failed with


def _ignore(size: int, error: EngineError | None) -> None:
    """Nobody wants to know."""


class FaultIsolatingEngine:
    """An engine whose failures are outcomes.

    lost: why the engine is gone for good, if it is: only a new process helps.
    last_error: what the latest call failed with; None once one works again.
    """

    def __init__(self, engine: Engine, on_call: OnCall = _ignore) -> None:
        self.lost: DeviceLost | None = None
        self.last_error: EngineError | None = None
        self._engine = engine
        self._on_call = on_call

    def infer(self, pictures: Sequence[UInt8Array], with_confidence: bool) -> Sequence[Outcome]:
        """One outcome a picture; pictures: (H, W, 3) uint8 RGB of one size."""
        if self.lost is not None:
            return [self.lost] * len(pictures)
        try:
            inference = self._call(pictures, with_confidence)
        except DeviceLost as error:
            self.lost = error
            return [error] * len(pictures)
        except EngineError as error:
            log.warning("a batch of %d failed: %s", len(pictures), error)
            return [error] if len(pictures) == 1 else self._in_parts(pictures, with_confidence, error)
        confidence = inference.confidence if with_confidence else None
        confidences = [None] * len(pictures) if confidence is None else list(confidence)
        return [Inference(*maps) for maps in zip(inference.ids, confidences, strict=True)]

    def _in_parts(self, pictures: Sequence[UInt8Array], with_confidence: bool, error: EngineError) -> Sequence[Outcome]:
        step = len(pictures) // 2 if isinstance(error, EngineOutOfMemory) else 1
        parts = (pictures[i : i + step] for i in range(0, len(pictures), step))
        return [outcome for part in parts for outcome in self.infer(part, with_confidence)]

    def _call(self, pictures: Sequence[UInt8Array], with_confidence: bool) -> Inference:
        """The engine's answer if it has the right form; every failure as an EngineError."""
        try:
            batch = pictures[0][None] if len(pictures) == 1 else np.stack(pictures)  # one alone need not be copied
            inference = self._engine.infer(batch, with_confidence)
            for found in (inference.ids, *([inference.confidence] if with_confidence else [])):
                _check_form(self._engine.name, found, batch.shape[:3])
        except Exception as raised:
            self.last_error = error = _as_engine_error(self._engine.name, raised)
            self._on_call(len(pictures), error)
            raise error from (None if error is raised else raised)
        self.last_error = None
        self._on_call(len(pictures), None)
        return inference


def _as_engine_error(engine: str, raised: Exception) -> EngineError:
    if isinstance(raised, EngineError):
        return raised
    if isinstance(raised, MemoryError):
        return EngineOutOfMemory(f"{engine} ran out of memory: {raised}")
    return EngineError(f"{engine} failed: {raised!r}")


def _check_form(engine: str, found: UInt8Array | None, shape: tuple[int, ...]) -> None:
    if found is None or found.shape != shape or found.dtype != np.uint8:
        told = "nothing" if found is None else f"{found.dtype} {found.shape}"
        raise EngineError(f"{engine} gave {told}; expected uint8 {shape}.")
