"""The door: what can be refused by a request's head alone is, before anything is spent on it.

Limits on the head, API keys, and, while the house is full, every POST: the cheapest answer is the one given here.
"""

import base64
import binascii
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HeadersTooLarge, RequestError, Unauthorized, UriTooLong
from service.http import problems
from service.http.auth import ApiKeys
from service.http.entrance import announced_bytes
from service.http.security_headers import PROBES
from service.inference.pipeline import Pipeline

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_QUERY_BYTES: Final = 8 * 1024


class GuardMiddleware:
    """Plain ASGI. keys: empty for a house without a lock."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        refusal = self._judge(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problems.answer_to(Request(scope), refusal)(scope, receive, send)

    def _judge(self, scope: Scope) -> RequestError | None:
        refusal = _head_too_large(scope)
        if refusal is None and self._keys and scope["path"] not in PROBES and not self._has_key(scope):
            refusal = Unauthorized("send one of the server's keys as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        if refusal is None and scope["method"] == "POST":
            refusal = _no_room(scope)
        return refusal

    def _has_key(self, scope: Scope) -> bool:
        given = (_key_in(name, value) for name, value in scope["headers"])
        return any(self._keys.know(key) for key in given if key is not None)


def _head_too_large(scope: Scope) -> RequestError | None:
    headers = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        return HeadersTooLarge(
            f"{len(headers)} headers of {size} bytes came; at most {MAX_HEADERS} of {MAX_HEADER_BYTES} are taken."
        )
    if (length := len(scope["query_string"])) > MAX_QUERY_BYTES:
        return UriTooLong(f"the query has {length} bytes; at most {MAX_QUERY_BYTES} are taken. Send pictures as body.")
    return None


def _no_room(scope: Scope) -> RequestError | None:
    pipeline: Pipeline | None = getattr(scope["app"].state, "pipeline", None)
    if pipeline is None:
        return None
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"").decode("latin-1")
    return pipeline.admission.refusal(announced_bytes(length, pipeline.settings.max_body_bytes))


def _key_in(name: bytes, value: bytes) -> str | None:
    """The key that a header carries. Basic (the key as password) lets a browser ask for it."""
    if name == b"x-api-key":
        return value.decode("utf-8", "surrogateescape")
    if name != b"authorization":
        return None
    scheme, _, credentials = value.decode("utf-8", "surrogateescape").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return _password(credentials) if scheme.lower() == "basic" else None


def _password(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def cors_options(origins: str) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware for origins separated by commas. No cookies, so no credentials."""
    return {
        "allow_origins": [origin.strip() for origin in origins.split(",") if origin.strip()],
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "X-Request-Timeout-Ms"],
        "expose_headers": ["Retry-After", "Retry-After-Ms", "Server-Timing", "X-Request-Id"],
        "max_age": 600,
    }
