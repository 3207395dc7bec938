"""What is recorded about one request while it is processed; read at its end by the log, the metrics and the trace.

The record is held in a context variable, so that the pipeline can add stages without depending on HTTP.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Stage:
    """One timed stage. began: on time.monotonic()."""

    name: str
    began: float
    seconds: float


@dataclass(slots=True)
class RequestRecord:
    """One request.

    route: the template of its path, e.g. /page/{name}; empty if the response was sent before routing.
    client: the client's IP address; behind a trusted proxy (FORWARDED_ALLOW_IPS) the one it forwards.
    model: the model that processed it, if any. refused: why it was rejected, e.g. "overloaded-time"; see errors.py.
    status: of the response; 0 until there is one. suppressed: similar log lines left out before this one.
    """

    request_id: str
    method: str = ""
    path: str = ""
    client: str = ""
    route: str = ""
    began: float = field(default_factory=time.monotonic)
    stages: list[Stage] = field(default_factory=list)
    model: str | None = None
    refused: str | None = None
    status: int = 0
    bytes_out: int = 0
    trace_id: str | None = None
    suppressed: int = 0

    @property
    def seconds(self) -> float:
        """Seconds since the head of the request was received."""
        return time.monotonic() - self.began

    def stages_ms(self) -> dict[str, float]:
        """Return the milliseconds of each stage; with several images or tiles, their sum."""
        total: dict[str, float] = {}
        for stage in self.stages:
            total[stage.name] = round(total.get(stage.name, 0.0) + stage.seconds * 1e3, 3)
        return total


_current: Final[ContextVar[RequestRecord | None]] = ContextVar("alignseg_record", default=None)
set_current = _current.set
reset_current = _current.reset


def current() -> RequestRecord | None:
    """Return the record of the request that the current task belongs to; None outside requests."""
    return _current.get()


def note_stage(name: str, began: float, seconds: float) -> None:
    """Add a stage to the current request's record. began: on time.monotonic()."""
    if (record := _current.get()) is not None:
        record.stages.append(Stage(name, began, seconds))


def note_model(name: str) -> None:
    """Set the model of the current request's record."""
    if (record := _current.get()) is not None:
        record.model = name


def note_refused(reason: str) -> None:
    """Set why the current request is rejected."""
    if (record := _current.get()) is not None:
        record.refused = reason
