"""What is known of one request: noted by the rooms it passes, read once at its end for the log, the metrics, the trace.

The record travels in a context variable, so that the pipeline can note its stages without knowing of HTTP.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Stage:
    """began: on time.monotonic()."""

    name: str
    began: float
    seconds: float


@dataclass(slots=True)
class RequestRecord:
    """One request.

    route: the template of its path, e.g. /page/{name}; empty when it was answered before one was looked for.
    model: which one worked on it, if any. refused: why it was turned away, e.g. "overloaded-time"; see errors.py.
    status: of the answer; 0 while there is none. suppressed: equal lines that were left out of the log before this one.
    """

    request_id: str
    method: str = ""
    path: str = ""
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
        """From the head of the request until now."""
        return time.monotonic() - self.began

    def stages_ms(self) -> dict[str, float]:
        """Milliseconds by stage; a stage that several pictures passed counts them all."""
        total: dict[str, float] = {}
        for stage in self.stages:
            total[stage.name] = round(total.get(stage.name, 0.0) + stage.seconds * 1e3, 3)
        return total


_current: Final[ContextVar[RequestRecord | None]] = ContextVar("alignseg_record", default=None)
enter = _current.set
leave = _current.reset


def current() -> RequestRecord | None:
    """The record of the request that this task works for; None outside of requests."""
    return _current.get()


def note_stage(name: str, began: float, seconds: float) -> None:
    """Add a stage to the current request."""
    if (record := _current.get()) is not None:
        record.stages.append(Stage(name, began, seconds))


def note_model(name: str) -> None:
    """Say which model works on the current request."""
    if (record := _current.get()) is not None:
        record.model = name


def note_refused(reason: str) -> None:
    """Say why the current request is turned away."""
    if (record := _current.get()) is not None:
        record.refused = reason
