"""What the way in and the engines of a fleet say to each other."""

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

Call = tuple[int, str | None]  # of an engine: pictures, and the name of the error it failed with
_TOLD: Final[dict[str, type[Exception]]] = {
    error.__name__: error for error in (EngineError, EngineOutOfMemory, DeviceLost, DeadlineExceeded)
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A replica's word on one picture; exactly one of ids, error and elsewhere is there.

    ids, confidence, infer_s, batch_size: as in waiting.Inferred.
    error: name and message of what the picture failed with. elsewhere: why another replica must be asked.
    calls: of the replica's engines since its last reply, so that the way in can count batches.
    """

    ids: UInt8Array | None = None
    confidence: UInt8Array | None = None
    infer_s: float = 0.0
    batch_size: int = 0
    error: tuple[str, str] | None = None
    elsewhere: str | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """A replica's engines. models: tags of those that it answers for. refused: why a changed one was not taken."""

    runtime: str
    has_confidence: bool
    total_batch_size: int
    models: tuple[str, ...]
    refused: str | None


def tag(manifest: Manifest) -> str:
    """Names a model exactly: both sides must mean the same buckets and classes."""
    return f"{manifest.name} {manifest.version} {sha256(manifest.model_dump_json().encode()).hexdigest()[:12]}"


def told(error: Exception) -> tuple[str, str]:
    """An error as it travels: exceptions of other processes bring theirs along, and lose their class."""
    name = type(error).__name__
    return name if name in _TOLD else EngineError.__name__, str(error)


def raised(error: tuple[str, str]) -> Exception:
    """The error again."""
    return _TOLD[error[0]](error[1])


def engine_error(name: str | None) -> EngineError | None:
    """For a count: of that class, without a message."""
    kind = _TOLD.get(name or "")
    return kind() if kind is not None and issubclass(kind, EngineError) else None
