"""Access log lines are written together and in order; rejections are limited; no stream can make logging raise."""

import errno
import io
import json
import logging
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from service.telemetry import log_writer, logs
from service.telemetry.access_log import AccessLog
from service.telemetry.logs import BufferedHandler
from service.telemetry.request_record import RequestRecord

APP = logging.getLogger("alignseg.app")


@pytest.fixture
def root() -> Generator[logging.Logger, None, None]:
    """The root logger, restored after the test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def log(root: logging.Logger) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("json", stream)
    return stream


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def names(text: str) -> list[object]:
    return [record.get("request_id", record["message"]) for record in records(text)]


def access(*ids: str) -> None:
    for request_id in ids:
        AccessLog().write(RequestRecord(request_id, status=200))


def test_access_lines_are_written_by_flush_and_before_any_later_line(log: io.StringIO) -> None:
    access("a", "b")
    assert log.getvalue() == ""
    APP.info("later")
    assert names(log.getvalue()) == ["a", "b", "later"]
    access("c")
    logs.flush()
    logs.flush()
    assert names(log.getvalue()) == ["a", "b", "later", "c"]


def test_access_lines_are_written_together(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []
    monkeypatch.setattr(log, "write", writes.append)
    access("a", "b", "c")
    logs.flush()
    assert [names(text) for text in writes] == [["a", "b", "c"]]


def test_a_full_buffer_is_written(log: io.StringIO) -> None:
    access(*map(str, range(2 * logs._BUFFER_LINES - 1)))
    assert len(records(log.getvalue())) == logs._BUFFER_LINES


def test_every_level_of_other_loggers_is_written_at_once(log: io.StringIO) -> None:
    for level in (logging.INFO, logging.WARNING, logging.CRITICAL):
        APP.log(level, "%d", level)
    assert names(log.getvalue()) == ["20", "30", "50"]


def test_unbuffered_access_lines_are_written_at_once(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("json", stream, buffered=False)
    access("a")
    assert names(stream.getvalue()) == ["a"]


def test_buffered_lines_are_written_when_logging_is_shut_down_or_configured_anew(log: io.StringIO) -> None:
    access("a")
    logging.getLogger().handlers[0].close()  # as logging.shutdown does at exit
    assert names(log.getvalue()) == ["a"]
    access("b")
    logs.configure("json", io.StringIO())
    assert names(log.getvalue()) == ["a", "b"]


class FailingStream(io.StringIO):
    """A stream that raises `error`, if set."""

    error: Exception | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(), ValueError("I/O operation on closed file"),
     BlockingIOError(), RuntimeError("reentrant call"), UnicodeEncodeError("ascii", "ü", 0, 1, "no")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_stream_that_fails_raises_nothing_and_lost_lines_are_counted(root: logging.Logger, error: Exception) -> None:
    stream = FailingStream()
    logs.configure("json", stream)
    stream.error = error
    access("a", "b")
    logs.flush()
    APP.error("c")
    access("d")
    logs.flush()
    assert logs.lost_lines() == 4
    stream.error = None
    APP.info("e")
    APP.info("f")
    assert names(stream.getvalue()) == ["4 log lines were lost", "e", "f"]
    assert logs.lost_lines() == 4


def test_a_closed_stream_raises_nothing(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("json", stream)
    stream.close()
    access("a")
    APP.warning("b")
    logs.configure("json", io.StringIO())  # closes the handler
    assert logs.lost_lines() == 0  # of the new one


def test_arguments_that_do_not_match_the_message_lose_that_line_only(log: io.StringIO) -> None:
    (handler,) = (handler for handler in logging.getLogger().handlers if isinstance(handler, BufferedHandler))
    for message, argument in (("%s", "a"), ("%d images", "no number"), ("%s", "b")):  # not to pytest's own handlers
        handler.handle(logging.LogRecord("alignseg.app", logging.INFO, "", 0, message, (argument,), None))
    assert names(log.getvalue()) == ["a", "1 log lines were lost", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_a_full_disk_did_not_take_is_not_kept_in_the_stream() -> None:
    """Else the stream's own buffer fails again when it is closed, and Python exits with code 120."""
    stream = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closed below
    handler = BufferedHandler(stream, 1)
    handler.handle(logging.LogRecord("alignseg.app", logging.INFO, "", 0, "x", (), None))
    assert handler.lost == 1
    stream.close()


def test_rejections_are_limited_per_second(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("service.telemetry.access_log.time.monotonic", lambda: now[0])
    access_log = AccessLog()
    for _ in range(500):
        access_log.write(RequestRecord("x", status=429, refused="overloaded-time"))
    access_log.write(RequestRecord("y", status=200))
    now[0] += 1
    access_log.write(RequestRecord("z", status=429, refused="overloaded-time"))
    logs.flush()
    lines = records(log.getvalue())
    assert len(lines) == 12
    assert lines[-1]["suppressed"] == 490


def test_warnings_of_invalid_requests_are_limited_per_second(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("service.telemetry.access_log.time.monotonic", lambda: now[0])
    uvicorn = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)  # tests with uvicorn's own settings stop that
    for _ in range(500):
        uvicorn.warning("Invalid HTTP request received.")
    uvicorn.error("never limited")
    now[0] += 1
    uvicorn.warning("Invalid HTTP request received.")
    lines = records(log.getvalue())
    assert len(lines) == 12
    assert lines[-1]["suppressed"] == 490


@pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "PYTHONUNBUFFERED"])
def test_a_reader_that_stalls_blocks_nobody_and_its_lines_are_written_later(unbuffered: bool) -> None:
    """With a full pipe the newest lines are dropped and counted; order is kept."""
    reader, writer = os.pipe()
    binary: Any = io.FileIO(writer, "w") if unbuffered else os.fdopen(writer, "wb")
    stream = io.TextIOWrapper(binary, encoding="utf-8", write_through=unbuffered)
    handler = BufferedHandler(stream, 1)
    count = log_writer.MAX_WAITING + 4000

    def write_all() -> None:
        for number in range(count):
            message = f"{number} {'x' * 100}"
            handler.handle(logging.LogRecord("alignseg.app", logging.INFO, "", 0, message, (), None))

    thread = threading.Thread(target=write_all, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert 0 < handler.lost < 4000
    lost = handler.lost
    pipe = os.fdopen(reader, encoding="utf-8")
    lines = [pipe.readline() for _ in range(count - lost + 1)]
    lines.remove(f"{lost} log lines were lost\n")
    assert [int(line.split()[0]) for line in lines] == list(range(count - lost))
    handler.handle(logging.LogRecord("alignseg.app", logging.INFO, "", 0, "last", (), None))
    assert pipe.readline() == "last\n"
    handler.close()
    stream.close()
    pipe.close()


def test_closing_gives_up_on_a_stalled_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CLOSE_TIMEOUT_S", 0.1)
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    handler = BufferedHandler(stream, 1)
    for _ in range(3):
        handler.handle(logging.LogRecord("alignseg.app", logging.INFO, "", 0, "x" * 100_000, (), None))
    thread = threading.Thread(target=handler.close, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    os.close(reader)  # ends the writer's call with a broken pipe
    stream.close()
