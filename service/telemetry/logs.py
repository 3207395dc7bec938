"""Log lines: one JSON object each for machines, or plain text for a person at a terminal."""

import logging
import sys
import time
from typing import Any, Final, Literal, TextIO

import orjson

from service.settings import LogFormat
from service.telemetry.bundling import BundlingHandler
from service.telemetry.request_record import RequestRecord

_LINES_A_SECOND: Final = 10  # of what strangers can cause; under attack the log must not become the load
_access: Final = logging.getLogger("alignseg.access")


class JsonFormatter(logging.Formatter):
    """{"time", "level", "logger", "message", ...the record's `fields`, "exception"}; time is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """2026-11-22 14:00:00,123 INFO alignseg.access: request status=200 ms=12.3."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line without its traceback."""
        fields = getattr(record, "fields", {})
        return super().formatMessage(record) + "".join(f" {name}={_printable(value)}" for name, value in fields.items())


def _printable(value: object) -> str:
    """As it is, or, if it would break the line or steer the terminal, with its control characters spelled out."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def resolved(form: LogFormat, stream: TextIO | None = None) -> Literal["json", "text"]:
    """What auto means for `stream` (stderr)."""
    if form == "auto":
        return "text" if (stream or sys.stderr).isatty() else "json"
    return form


def configure(form: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Send all loggers to `stream` (stderr). auto: text on a terminal, JSON elsewhere."""
    stream = stream or sys.stderr
    text = resolved(form, stream) == "text"
    handler = BundlingHandler(stream, together=_access.name)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_FewWarnings())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Few:
    """Lets the first few lines of each second through.

    suppressed: how many it did not, since somebody last asked.
    """

    def __init__(self) -> None:
        self.suppressed = 0
        self._second = 0
        self._asked = 0

    def one_more(self) -> bool:
        """Whether this line may be written."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._asked = second, 0
        self._asked += 1
        passes = self._asked <= _LINES_A_SECOND
        self.suppressed += not passes
        return passes

    def take_suppressed(self) -> int:
        """The count, which begins anew."""
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed


class _FewWarnings(logging.Filter):
    """uvicorn warns of each message that does not parse: anybody can send those as fast as they like."""

    def __init__(self) -> None:
        super().__init__()
        self._few = _Few()

    def filter(self, record: logging.LogRecord) -> bool:
        """All but what is too much of these."""
        if record.name != "uvicorn.error" or record.levelno != logging.WARNING:
            return True
        if not self._few.one_more():
            return False
        if suppressed := self._few.take_suppressed():
            record.fields = {"suppressed": suppressed}
        return True


class AccessLog:
    """One line a request; of refusals the first few each second, and how many were left out since."""

    def __init__(self) -> None:
        self._few = _Few()

    def write(self, record: RequestRecord, *, quiet: bool = False) -> None:
        """Log a finished request. quiet: one that is asked so often that it is only worth DEBUG."""
        level = logging.DEBUG if quiet and record.status < 400 else logging.INFO
        if not _access.isEnabledFor(level) or (record.refused is not None and not self.one_more_refusal()):
            return
        self._write(level, record)

    def one_more_refusal(self) -> bool:
        """Whether another refusal's line may be written; if not, it is counted."""
        return self._few.one_more()

    def write_refused(self, record: RequestRecord) -> None:
        """Log a refusal that may be."""
        self._write(logging.INFO, record)

    def _write(self, level: int, record: RequestRecord) -> None:
        if record.refused is not None:
            record.suppressed = self._few.take_suppressed()
        _access.log(level, "request", extra={"fields": _fields(record)})


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
        "model": record.model,
        "stages_ms": record.stages_ms(),
        "refused": record.refused,
        "trace_id": record.trace_id,
        "suppressed": record.suppressed,
    }
    return fields | {name: value for name, value in optional.items() if value}
