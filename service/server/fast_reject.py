"""The cheapest refusal: while the house is full, a POST is answered from its first bytes, before parser and ASGI.

At four times the capacity three refusals come with every answer, and what they cost is taken from the answers: here
a fifth of what they would cost through the application. Same response, metrics and log as through the application:
guard.EntryRule decides for both, and whatever is not the plainest of requests goes to the application.
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
from service.http.middleware.early_rejection import MAX_HEADERS, EntryRule
from service.http.middleware.observability import request_id_in
from service.http.problems import TYPE_PREFIX, written
from service.http.security_headers import HEADERS
from service.inference.pipeline import Pipeline
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.request_record import RequestRecord

_FIXED: Final = b"".join(b"%s: %s\r\n" % header for header in HEADERS.items())
_PHRASES: Final = {429: b"Too Many Requests", 503: b"Service Unavailable"}
_REQUEST: Final = re.compile(
    rb"POST (/[!\"$&->@-~]*)(?:\?[!-~]*)? HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+\r\n"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_HOST: Final = re.compile(rb"\r\nhost:", re.IGNORECASE)
# What changes how a message is framed, or how long its connection lives.
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:transfer-encoding|expect|upgrade|content-length.*\r\ncontent-length"
    rb"|connection:(?![ \t]*keep-alive\r\n))",
    re.IGNORECASE | re.DOTALL,
)
_MAX_HEAD: Final = 8 * 1024
_HEADS: Final = 256  # that are remembered: a client's are all alike, and reading one takes longer than finding it
_ANY_ID: Final = b"0" * 32  # stands for the request id in a template
_FRESH_S: Final = 0.005
_TEMPLATES: Final = 64


@dataclass(frozen=True, slots=True)
class PlainPost:
    """A POST in HTTP/1.1 with a Content-Length and nothing unusual.

    path: without escapes, so that the application reads the same. headers: as in an ASGI scope, names in lower case.
    size: bytes of the whole message.
    """

    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    request_id: str | None
    body_size: int
    size: int


def read_head(data: bytes) -> PlainPost | None:
    """What a message that begins with `data` is; None when it is not a plain POST, or its head not complete."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD)
    return _parse(data[: end + 4]) if end >= 0 else None


@lru_cache(_HEADS)
def _parse(head: bytes) -> PlainPost | None:
    request, length = _REQUEST.fullmatch(head), _LENGTH.search(head)
    if request is None or length is None or _UNUSUAL.search(head) or len(_HOST.findall(head)) != 1:
        return None
    headers = tuple(_header(line) for line in head[:-4].split(b"\r\n")[1:])
    if len(headers) > MAX_HEADERS:
        return None
    body_size = int(length[1])
    return PlainPost(request[1].decode(), headers, request_id_in(headers), body_size, len(head) + body_size)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


class FastReject:
    """Asked with the first bytes of each message. state: the application's. rule: the one that it uses."""

    def __init__(self, state: State, metrics: Metrics, log: AccessLog, rule: EntryRule) -> None:
        self._state = state
        self._rule = rule
        self._metrics = metrics
        self._log = log
        self._templates: dict[tuple[str, str], CachedRejection] = {}

    def reject(self, data: bytes) -> tuple[bytes, int] | None:
        """A whole answer for who can't come in, and the size of what it answers; None for who is to be heard."""
        pipeline: Pipeline | None = getattr(self._state, "pipeline", None)
        if pipeline is None or not pipeline.admission.may_reject or (post := read_head(data)) is None:
            return None
        if post.body_size > pipeline.settings.max_body_bytes or len(data) > post.size:
            return None
        if not self._rule.takes_post(post.path) or not self._rule.has_access(post.path, post.headers):
            return None
        admission = pipeline.admission
        what = admission.rejection_reason(post.body_size)
        return None if what is None else (self._answer(post, what, admission), post.size)

    def _answer(self, post: PlainPost, what: str, admission: AdmissionController) -> bytes:
        request_id = post.request_id or f"{random.getrandbits(128):032x}"
        made = self._made(post, what, admission)
        if len(request_id) == len(_ANY_ID):
            answer = made.answer.replace(_ANY_ID, request_id.encode())
        else:
            answer = _render(made.refusal, request_id, post.path)
        status, reason = made.refusal.status, made.refusal.reason
        self._metrics.rejected_early(post.path, status, reason)
        if self._log.allows_rejection():
            record = RequestRecord(request_id, "POST", post.path, status=status, refused=reason, bytes_out=len(answer))
            self._log.write_rejection(record)
        return answer

    def _made(self, post: PlainPost, what: str, admission: AdmissionController) -> "CachedRejection":
        """The refusal, and its answer whatever the request id; made anew every few milliseconds: its figures change."""
        now, key = time.monotonic(), (post.path, what)
        made = self._templates.get(key)
        if made is None or now - made.at > _FRESH_S:
            if len(self._templates) >= _TEMPLATES:  # clients invent paths
                self._templates.clear()
            refusal = admission.rejection_error(what, post.body_size)
            made = self._templates[key] = CachedRejection(now, refusal, _render(refusal, _ANY_ID.decode(), post.path))
        return made


def for_app(app: FastAPI) -> FastReject | None:
    """The early rejection of an application; None when its CORS headers or traces need every response."""
    rule: EntryRule | None = getattr(app.state, "entry_rule", None)
    return None if rule is None else FastReject(app.state, app.state.metrics, app.state.access_log, rule)


@dataclass(frozen=True, slots=True)
class CachedRejection:
    """at: when, on time.monotonic()."""

    at: float
    refusal: RequestError
    answer: bytes


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
