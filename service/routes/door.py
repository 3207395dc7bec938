"""The cheapest refusal: while the house is full, a POST is answered as soon as its head is parsed, before ASGI.

At four times the capacity three refusals come with every answer, and what they cost is taken from the answers: here
a third of what they would cost through the application. Same answer, same figures, same log as by that road.
"""

import math
import os
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import State

from service.errors import RequestError
from service.journal import Record
from service.logs import AccessLog
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.routes.entrance import announced_bytes
from service.routes.observe import request_id_in
from service.routes.problems import TYPE_PREFIX, written
from service.routes.security import HEADERS

Headers = Sequence[tuple[bytes, bytes]]
_FIXED: Final = b"".join(b"%s: %s\r\n" % header for header in HEADERS.items())
_PHRASES: Final = {429: b"Too Many Requests", 503: b"Service Unavailable"}


class Door:
    """Asked with each head. state: the application's."""

    def __init__(self, state: State, metrics: Metrics, log: AccessLog) -> None:
        self._state = state
        self._metrics = metrics
        self._log = log

    def refuse(self, method: bytes, url: bytes, headers: Headers) -> bytes | None:
        """A whole HTTP/1.1 answer for who can't come in; None for who is to be heard."""
        pipeline: Pipeline | None = getattr(self._state, "pipeline", None)
        if method != b"POST" or pipeline is None:
            return None
        length = next((value for name, value in headers if name == b"content-length"), b"").decode("latin-1")
        refusal = pipeline.admission.refusal(announced_bytes(length, pipeline.settings.max_body_bytes))
        return None if refusal is None else self._answer(url, headers, refusal)

    def _answer(self, url: bytes, headers: Headers, refusal: RequestError) -> bytes:
        path = url.partition(b"?")[0].decode("latin-1")
        record = Record(request_id_in(headers) or os.urandom(16).hex(), "POST", path, refused=refusal.reason)
        record.status = refusal.status
        answer = _render(refusal, record.request_id, path)
        record.bytes_out = len(answer)
        self._metrics.finished(record)
        self._log.write(record)
        return answer


def _render(refusal: RequestError, request_id: str, path: str) -> bytes:
    retry_s = refusal.retry_after_s or 0.0
    problem = {
        "type": TYPE_PREFIX + refusal.slug,
        "title": refusal.title,
        "status": refusal.status,
        "detail": str(refusal),
        "request_id": request_id,
        "retry_after_s": round(retry_s, 3),
    }
    body, media_type = written(problem, path)
    return b"HTTP/1.1 %d %s\r\n%scontent-type: %s\r\ncontent-length: %d\r\n" % (
        refusal.status, _PHRASES[refusal.status], _FIXED, media_type.encode(), len(body),
    ) + b"retry-after: %d\r\nretry-after-ms: %d\r\nx-request-id: %s\r\n\r\n%s" % (
        max(1, math.ceil(retry_s)), math.ceil(retry_s * 1e3), request_id.encode(), body,
    )  # fmt: skip
