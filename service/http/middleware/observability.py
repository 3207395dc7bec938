"""The outermost layer: names each request, times it, and at its end tells the log, the metrics and the trace.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide from routes that a client has left.
"""

import random
import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.security_headers import HEADERS, PROBES
from service.telemetry import request_record
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord
from service.telemetry.tracing import Tracer

REQUEST_ID: Final = "X-Request-Id"
_ID_BYTES: Final = REQUEST_ID.lower().encode()
_SAFE: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # goes into logs: no spaces, no line breaks
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class ObserveMiddleware:
    """Wraps a whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: AccessLog, tracer: Tracer | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Observe one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _begin(scope)
        token = request_record.set_current(record)
        try:
            await self._app(scope, receive, _noting(record, send))
        except Exception:
            record.status = 500  # answered further out, by problems.py
            raise
        finally:
            request_record.reset_current(token)
            self._finish(scope, record)

    def _finish(self, scope: Scope, record: RequestRecord) -> None:
        record.route = _route(scope)
        record.status = record.status or 499  # nginx's number for a client that left before there was an answer
        if self._tracer is not None:
            record.trace_id = self._tracer.export(record, scope["headers"])
        self._metrics.finished(record)
        self._log.write(record, quiet=record.route in PROBES)


def request_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The client's own id, if it gave one that is fit for a log."""
    given = next((value for name, value in headers if name == _ID_BYTES), b"").decode("latin-1")
    return given if _SAFE.fullmatch(given) else None


def _begin(scope: Scope) -> RequestRecord:
    request_id = request_id_in(scope["headers"]) or f"{random.getrandbits(128):032x}"
    scope.setdefault("state", {})["request_id"] = request_id
    return RequestRecord(request_id, method=scope["method"], path=scope["path"])


def _noting(record: RequestRecord, send: Send) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            message["headers"] = _completed(message.get("headers", ()), record.request_id)
        else:
            record.bytes_out += len(message.get("body", b""))
        await send(message)

    return noting


def _completed(headers: Any, request_id: str) -> list[tuple[bytes, bytes]]:
    """The answer's own headers, then those it lacks."""
    own = [(name, value) for name, value in headers if name != _ID_BYTES]
    names = {name for name, _ in own}
    added = [(name, value) for name, value in HEADERS.items() if name not in names]
    return [*own, *added, (_ID_BYTES, request_id.encode())]


def _route(scope: Scope) -> str:
    """The route's template, never the path itself; empty when none was found."""
    return str(getattr(scope.get("route"), "path", "")) if scope["method"] in _METHODS else ""
