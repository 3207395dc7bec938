"""The messages between the ingress and the engine replicas."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from service.errors import (
    DeadlineExceeded,
    DeviceLost,
    EngineError,
    EngineOutOfMemory,
)
from service.model_folder.manifest import Manifest
from service.types import UInt8Array

Call = tuple[int, str | None]  # one engine call: images, and the class name of its error, if any
_WIRE_ERRORS: Final[dict[str, type[Exception]]] = {
    error.__name__: error for error in (EngineError, EngineOutOfMemory, DeviceLost, DeadlineExceeded)
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A replica's reply for one image; exactly one of ids, error and retry_on_other_replica is set.

    ids, confidence, infer_s, batch_size: as in InferenceResult.
    error: class name and message of the image's error; see error_to_wire.
    retry_on_other_replica: why this replica cannot compute the image although another may.
    calls: engine calls since the replica's previous reply, so that the ingress can count batches.
    """

    ids: UInt8Array | None = None
    confidence: UInt8Array | None = None
    infer_s: float = 0.0
    batch_size: int = 0
    error: tuple[str, str] | None = None
    retry_on_other_replica: str | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """A replica's engines. models: tags of the models it serves. refused: why a changed model was refused, if so."""

    runtime: str
    has_confidence: bool
    total_batch_size: int
    models: tuple[str, ...]
    refused: str | None


def tag(manifest: Manifest) -> str:
    """Return an exact identifier of a model, so that both sides use the same buckets and classes."""
    return f"{manifest.name} {manifest.version} {sha256(manifest.model_dump_json().encode()).hexdigest()[:12]}"


def error_to_wire(error: Exception) -> tuple[str, str]:
    """Return (class name, message). Exceptions themselves lose their class when Ray transports them."""
    name = type(error).__name__
    return name if name in _WIRE_ERRORS else EngineError.__name__, str(error)


def error_from_wire(error: tuple[str, str]) -> Exception:
    """Return the error that error_to_wire encoded."""
    return _WIRE_ERRORS[error[0]](error[1])


def engine_error(name: str | None) -> EngineError | None:
    """Return an error of that class without a message, to be counted; None if it is not an EngineError."""
    kind = _WIRE_ERRORS.get(name or "")
    return kind() if kind is not None and issubclass(kind, EngineError) else None
