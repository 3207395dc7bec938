"""The access log: one line per request. Lines that clients can cause at any rate are limited."""

import logging
import time
from typing import Any, Final

from service.telemetry.request_record import RequestRecord

LOGGER: Final = "alignseg.access"
LINES_PER_SECOND: Final = 10  # of each limited kind, so that an attack does not overload the log
_log: Final = logging.getLogger(LOGGER)


class AccessLog:
    """Writes one line per request; of rejections the first few per second, with the number left out before."""

    def __init__(self) -> None:
        self._limit = RateLimit()

    def write(self, record: RequestRecord, *, quiet: bool = False) -> None:
        """Log a finished request. quiet: at DEBUG unless it failed; for health checks and scrapes."""
        level = logging.DEBUG if quiet and record.status < 400 else logging.INFO
        if not _log.isEnabledFor(level) or (record.refused is not None and not self.allows_rejection()):
            return
        self._write(level, record)

    def allows_rejection(self) -> bool:
        """Return whether another rejection may be logged; if not, count it."""
        return self._limit.allow()

    def write_rejection(self, record: RequestRecord) -> None:
        """Log a rejection that `allows_rejection` allowed."""
        self._write(logging.INFO, record)

    def _write(self, level: int, record: RequestRecord) -> None:
        if record.refused is not None:
            record.suppressed = self._limit.take_suppressed()
        _log.log(level, "request", extra={"fields": _fields(record)})


def _fields(record: RequestRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "ms": round(record.seconds * 1e3, 3),
        "bytes_out": record.bytes_out,
    }
    optional = {
        "client": record.client,
        "model": record.model,
        "stages_ms": record.stages_ms(),
        "refused": record.refused,
        "trace_id": record.trace_id,
        "suppressed": record.suppressed,
    }
    return fields | {name: value for name, value in optional.items() if value}


class RateLimit:
    """Allows the first few lines of each second. suppressed: lines not allowed since `take_suppressed`."""

    def __init__(self) -> None:
        self.suppressed = 0
        self._second = 0
        self._count = 0

    def allow(self) -> bool:
        """Return whether this line may be written; if not, count it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        allowed = self._count <= LINES_PER_SECOND
        self.suppressed += not allowed
        return allowed

    def take_suppressed(self) -> int:
        """Return the count and reset it."""
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed
