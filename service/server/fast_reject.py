"""Rejects a POST from its first bytes, before HTTP parsing and ASGI, while the server is at capacity.

At four times the capacity three rejections come with each response, and their cost is taken from the responses. Here
a rejection costs a fifth of one through the application. It has the same response, metrics and log line:
EarlyRejectionRule decides for both, and every message that is not a plain POST is left to the application.
"""

import math
import random
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import State

from service.admission.controller import AdmissionController
from service.errors import RequestError
from service.http.middleware.early_rejection import MAX_HEADERS, EarlyRejectionRule
from service.http.middleware.observability import client_address, request_id_from
from service.http.middleware.paths import route_path
from service.http.problems import TYPE_PREFIX, serialize
from service.http.security_headers import HEADERS
from service.inference.pipeline import Pipeline
from service.observers import isolated
from service.server.forwarded_client import Address, ForwardedClient
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord

_FIXED_HEADERS: Final = b"".join(b"%s: %s\r\n" % header for header in HEADERS.items())
_PHRASES: Final = {429: b"Too Many Requests", 503: b"Service Unavailable"}
_REQUEST: Final = re.compile(
    rb"POST (/[!\"$&->@-~]*)(?:\?[!-~]*)? HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+\r\n"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_HOST: Final = re.compile(rb"\r\nhost:", re.IGNORECASE)
# Headers that change how a message is framed, or how long its connection lives.
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:transfer-encoding|expect|upgrade|content-length.*\r\ncontent-length"
    rb"|connection:(?![ \t]*keep-alive\r\n))",
    re.IGNORECASE | re.DOTALL,
)
_MAX_HEAD_BYTES: Final = 8 * 1024
_CACHED_HEADS: Final = 256  # a client's heads are mostly equal, and a cache lookup is faster than parsing
_CACHED_REJECTIONS: Final = 64
_REJECTION_TTL_S: Final = 0.005
_PLACEHOLDER_ID: Final = b"0" * 32  # stands for the request id in a cached response


@dataclass(frozen=True, slots=True)
class PlainPost:
    """A POST in HTTP/1.1 with a Content-Length and no unusual headers.

    path: without escapes, so that the application reads the same. headers: as in an ASGI scope, names in lower case.
    size: bytes of the whole message.
    """

    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    request_id: str | None
    body_size: int
    size: int


def read_head(data: bytes) -> PlainPost | None:
    """Parse the start of a message. Returns None if it is not a plain POST or its head is incomplete."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    return _parse(data[: end + 4]) if end >= 0 else None


@lru_cache(_CACHED_HEADS)
def _parse(head: bytes) -> PlainPost | None:
    request, length = _REQUEST.fullmatch(head), _LENGTH.search(head)
    if request is None or length is None or _UNUSUAL.search(head) or len(_HOST.findall(head)) != 1:
        return None
    headers = tuple(_header(line) for line in head[:-4].split(b"\r\n")[1:])
    if len(headers) > MAX_HEADERS:
        return None
    body_size = int(length[1])
    return PlainPost(request[1].decode(), headers, request_id_from(headers), body_size, len(head) + body_size)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


class FastReject:
    """Called with the first bytes of each message. state: the application's. rule: the application's too."""

    def __init__(self, state: State, metrics: Metrics, log: AccessLog, rule: EarlyRejectionRule) -> None:
        self._state = state
        self._rule = rule
        self._metrics = metrics
        self._log = log
        self._forwarded_client = ForwardedClient()
        self._cache: dict[tuple[str, str], CachedRejection] = {}

    def reject(self, data: bytes, peer: Address) -> tuple[bytes, int] | None:
        """Returns the response and the size of the message it answers; None to let the application handle it.

        peer: address and port of the connection.
        """
        pipeline: Pipeline | None = getattr(self._state, "pipeline", None)
        if pipeline is None or not pipeline.admission.may_reject or (post := read_head(data)) is None:
            return None
        if post.body_size > pipeline.settings.max_body_bytes or len(data) > post.size:
            return None
        path = route_path(post.path, self._rule.root_path)
        if not self._rule.takes_post(path) or not self._rule.has_access(path, post.headers):
            return None
        admission = pipeline.admission
        reason = admission.rejection_reason(post.body_size)
        return None if reason is None else (self._respond(post, peer, path, reason, admission), post.size)

    def _respond(self, post: PlainPost, peer: Address, path: str, reason: str, admission: AdmissionController) -> bytes:
        request_id = post.request_id or f"{random.getrandbits(128):032x}"
        cached = self._cached_rejection(path, post.body_size, reason, admission)
        if len(request_id) == len(_PLACEHOLDER_ID):
            response = cached.response.replace(_PLACEHOLDER_ID, request_id.encode())
        else:
            response = _render(cached.error, request_id, path)
        self._observe(post, peer, path, request_id, cached.error, len(response))
        return response

    def _observe(
        self, post: PlainPost, peer: Address, path: str, request_id: str, error: RequestError, size: int
    ) -> None:
        with isolated:
            self._metrics.rejected_early(path, error.status, error.reason)
        with isolated:
            if self._log.allows_rejection():
                client = client_address(self._forwarded_client.of(peer, post.headers))
                record = RequestRecord(
                    request_id, "POST", path, client, status=error.status, refused=error.reason, bytes_out=size
                )
                self._log.write_rejection(record)

    def _cached_rejection(
        self, path: str, body_size: int, reason: str, admission: AdmissionController
    ) -> "CachedRejection":
        """The rejection for any request id. Renewed every few milliseconds, because its numbers change."""
        now, key = time.monotonic(), (path, reason)
        cached = self._cache.get(key)
        if cached is None or now - cached.created > _REJECTION_TTL_S:
            if len(self._cache) >= _CACHED_REJECTIONS:  # clients may send any number of paths
                self._cache.clear()
            error = admission.rejection_error(reason, body_size)
            response = _render(error, _PLACEHOLDER_ID.decode(), path)
            cached = self._cache[key] = CachedRejection(now, error, response)
        return cached


def for_app(app: FastAPI) -> FastReject | None:
    """The early rejection of an application; None if its CORS headers or traces need every response."""
    rule: EarlyRejectionRule | None = getattr(app.state, "early_rejection_rule", None)
    return None if rule is None else FastReject(app.state, app.state.metrics, app.state.access_log, rule)


@dataclass(frozen=True, slots=True)
class CachedRejection:
    """created: on time.monotonic(). response: whole, with _PLACEHOLDER_ID as request id."""

    created: float
    error: RequestError
    response: bytes


def _render(error: RequestError, request_id: str, path: str) -> bytes:
    retry_s = error.retry_after_s or 0.0
    problem = {
        "type": TYPE_PREFIX + error.slug,
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "request_id": request_id,
        "retry_after_s": round(retry_s, 3),
    }
    body, media_type = serialize(problem, path)
    return b"HTTP/1.1 %d %s\r\n%scontent-type: %s\r\ncontent-length: %d\r\n" % (
        error.status, _PHRASES[error.status], _FIXED_HEADERS, media_type.encode(), len(body),
    ) + b"retry-after: %d\r\nretry-after-ms: %d\r\nx-request-id: %s\r\n\r\n%s" % (
        max(1, math.ceil(retry_s)), math.ceil(retry_s * 1e3), request_id.encode(), body,
    )  # fmt: skip
