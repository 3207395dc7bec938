"""Log lines: one JSON object each for machines, or plain text on a terminal."""

import io
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, Final, Literal, TextIO, get_args

import orjson

from service.settings import LogFormat, variable
from service.telemetry.access_log import LOGGER as ACCESS_LOGGER
from service.telemetry.access_log import RateLimit
from service.telemetry.log_writer import WriterThread

_UVICORN: Final = "uvicorn.error"
_BUFFER_LINES: Final = 1000
_CLOSE_TIMEOUT_S: Final = 1.0


class JsonFormatter(logging.Formatter):
    """{"time", "level", "logger", "message", ...the record's `fields`, "exception"}; time is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": _logger_name(record),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """2026-11-22 14:00:00,123 INFO alignseg.access: request status=200 ms=12.3 stages_ms.decode=1.2."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(logger)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line without its traceback."""
        record.logger = _logger_name(record)
        fields = _flat(getattr(record, "fields", {}))
        return super().formatMessage(record) + "".join(f" {name}={_printable(value)}" for name, value in fields)


def _logger_name(record: logging.LogRecord) -> str:
    """Uvicorn logs all lines, ordinary ones too, under the name uvicorn.error."""
    return "uvicorn" if record.name == _UVICORN else record.name


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """{"stages_ms": {"decode": 1.2}} -> ("stages_ms.decode", 1.2)."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", part) for inner, part in value.items())
        else:
            yield name, value


def _printable(value: object) -> str:
    """Escape control characters: they could break the line or change the terminal's state."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


class BufferedHandler(MemoryHandler):
    """Buffers access log lines and writes them together; writes all other lines at once. Order is kept.

    One write per request would take a twentieth of the processor time. `flush` is called by Server.on_tick.
    Never raises: logging must not fail the code that logs, also when the disk is full or the pipe is closed. Never
    blocks for long: a file or pipe is written in a thread, see log_writer.py.
    lost: lines that could not be written. Their number is logged once lines can be written again.
    """

    def __init__(self, stream: TextIO, buffer_lines: int) -> None:
        super().__init__(buffer_lines)
        self._failed = 0
        self._dropped = 0  # apart from `_failed`, because each of them is counted in its own thread
        self._reported = 0
        self._stream = stream
        self._writer = None if _raw(stream) is None else WriterThread(self._write_records)

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._failed + self._dropped

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's own name
        """Return whether to write now: for all but access log lines, and when the buffer is full."""
        return record.name != ACCESS_LOGGER or super().shouldFlush(record)

    def flush(self) -> None:
        """Write the buffered lines. Called from any thread."""
        self.acquire()
        try:
            records, self.buffer = self.buffer, []
            if records and self._writer is not None:
                self._dropped += self._writer.submit(records)
            elif records:
                self._write_records(records)
        finally:
            self.release()

    def close(self) -> None:
        """Write the buffered lines; give up on a stalled reader after a second."""
        super().close()
        if self._writer is not None:
            self._writer.wait(_CLOSE_TIMEOUT_S)

    def _write_records(self, records: list[logging.LogRecord]) -> None:
        lost_before = self.lost
        lines = [line for record in records if (line := self._format(record)) is not None]
        failed = len(records) - len(lines)
        if lost_before > self._reported:
            lines.insert(0, self.format(_lost_lines_record(lost_before - self._reported)))
        try:
            self._write("".join(line + "\n" for line in lines))
            self._reported = lost_before
        except Exception:  # full disk, closed pipe, closed stream: there is nowhere to report it
            failed = len(records)
        self._failed += failed

    def _format(self, record: logging.LogRecord) -> str | None:
        try:
            return self.format(record)
        except Exception:  # a message whose arguments do not match
            return None

    def _write(self, text: str) -> None:
        # Below the stream's own buffer: that would keep what cannot be written, and fail again at exit (code 120).
        raw = _raw(self._stream)
        if raw is None:
            self._stream.write(text)
            self._stream.flush()
            return
        self._stream.flush()
        data = memoryview(text.encode(self._stream.encoding, "backslashreplace"))
        while data:
            written = raw.write(data)
            if not written:
                raise BlockingIOError("a non-blocking stream is full")
            data = data[written:]


def _raw(stream: TextIO) -> Any:
    """Return the file below the stream's own buffer; None for a stream in memory."""
    buffer = getattr(stream, "buffer", None)
    return buffer if isinstance(buffer, io.RawIOBase) else getattr(buffer, "raw", None)  # PYTHONUNBUFFERED: no buffer


def _lost_lines_record(count: int) -> logging.LogRecord:
    return logging.LogRecord("alignseg.logs", logging.WARNING, "", 0, "%d log lines were lost", (count,), None)


def _stderr() -> TextIO:
    """Return sys.stderr; /dev/null if the process was started without one (`2>&-`)."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - never closed
    return sys.stderr


def requested_format(environment: Mapping[str, str]) -> LogFormat:
    """Return ALIGNSEG_LOG where the settings can't be read as a whole; "auto" if it is invalid."""
    requested = environment.get(variable("log"), "")
    return next((form for form in get_args(LogFormat) if form == requested), "auto")


def resolved(form: LogFormat, stream: TextIO | None = None) -> Literal["json", "text"]:
    """Return the format that "auto" means for `stream` (stderr): text on a terminal, else JSON."""
    if form == "auto":
        return "text" if (stream or _stderr()).isatty() else "json"
    return form


def configure(form: LogFormat = "auto", stream: TextIO | None = None, *, buffered: bool = True) -> None:
    """Send all loggers to `stream` (stderr). buffered: buffer access log lines; then `flush` must be called often."""
    stream = stream or _stderr()
    text = resolved(form, stream) == "text"
    handler = BufferedHandler(stream, _BUFFER_LINES if buffered else 1)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_LimitInvalidRequestWarnings())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def flush() -> None:
    """Write the buffered access log lines. Never raises."""
    for handler in _handlers():
        handler.flush()


def lost_lines() -> int:
    """Return how many lines could not be written."""
    return sum(handler.lost for handler in _handlers())


def _handlers() -> list[BufferedHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, BufferedHandler)]


class _LimitInvalidRequestWarnings(logging.Filter):
    """Limits uvicorn's warning for each message that does not parse: any client can cause them at any rate."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = RateLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record; add the number of those left out before it."""
        if record.name != _UVICORN or record.levelno != logging.WARNING:
            return True
        if not self._limit.allow():
            return False
        if suppressed := self._limit.take_suppressed():
            record.fields = {"suppressed": suppressed}
        return True
