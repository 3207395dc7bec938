"""The outermost middleware: assigns the request id, times the request, and at its end logs, counts and traces it.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide from routes that a client has disconnected.
"""

import random
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.security_headers import HEADERS, PROBE_PATHS
from service.observers import isolated
from service.telemetry import request_record
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord
from service.telemetry.tracing import Tracer

REQUEST_ID: Final = "X-Request-Id"
_ID_BYTES: Final = REQUEST_ID.lower().encode()
_SAFE: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # it is logged: no spaces, no line breaks
_MAX_ADDRESS: Final = 64
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class ObservabilityMiddleware:
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
        record = _new_record(scope)
        token = request_record.set_current(record)
        try:
            await self._app(scope, receive, _recording(record, send))
        except Exception:
            record.status = 500  # the response is made further out, see problems.py
            raise
        finally:
            request_record.reset_current(token)
            self._finish(scope, record)

    def _finish(self, scope: Scope, record: RequestRecord) -> None:
        record.route, record.path = _route(scope), scope["path"]  # as the routes know it, see PathMiddleware
        record.status = record.status or 499  # nginx's status for a client that disconnected before the response
        if self._tracer is not None:
            with isolated:
                record.trace_id = self._tracer.export(record, scope["headers"])
        with isolated:
            self._metrics.finished(record)
        with isolated:
            self._log.write(record, quiet=record.route in PROBE_PATHS)


def request_id_from(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The client's own request id, if it sent one that may be logged."""
    value = next((value for name, value in headers if name == _ID_BYTES), b"").decode("latin-1")
    return value if _SAFE.fullmatch(value) else None


def client_address(client: Sequence[Any] | None) -> str:
    """The IP address of an ASGI scope's client; empty without one. Cut, because a client may invent a forwarded one."""
    return client[0][:_MAX_ADDRESS] if client else ""


def _new_record(scope: Scope) -> RequestRecord:
    request_id = request_id_from(scope["headers"]) or f"{random.getrandbits(128):032x}"
    scope.setdefault("state", {})["request_id"] = request_id
    return RequestRecord(
        request_id, method=scope["method"], path=scope["path"], client=client_address(scope.get("client"))
    )


def _recording(record: RequestRecord, send: Send) -> Send:
    async def send_and_record(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            message["headers"] = _complete_headers(message.get("headers", ()), record.request_id)
        else:
            record.bytes_out += len(message.get("body", b""))
        await send(message)

    return send_and_record


def _complete_headers(headers: Any, request_id: str) -> list[tuple[bytes, bytes]]:
    """The response's own headers, then the security headers it lacks and the request id."""
    own = [(name, value) for name, value in headers if name != _ID_BYTES]
    names = {name for name, _ in own}
    added = [(name, value) for name, value in HEADERS.items() if name not in names]
    return [*own, *added, (_ID_BYTES, request_id.encode())]


def _route(scope: Scope) -> str:
    """The route's template, never the path itself; empty if no route matched."""
    return str(getattr(scope.get("route"), "path", "")) if scope["method"] in _METHODS else ""
