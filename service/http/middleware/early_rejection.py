"""The door: what can be refused by a request's head alone is, before anything is spent on it.

Limits on the head, then API keys, then, while the server is full, every POST to a path that takes one.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
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
_PATHS: Final = 256  # remembered, whether they take a POST; clients invent paths


class EntryRule:
    """Which requests the capacity check applies to. GuardMiddleware and Door both use it, so that they agree.

    A request without a valid key (401), or to a path that takes no POST (404, 405), never reaches the capacity check:
    it gets the same response at any load and cannot prolong an overload.
    keys: empty for a server that needs none. routes: the application's; those added later count too.
    """

    def __init__(self, keys: ApiKeys, routes: Sequence[BaseRoute]) -> None:
        self._keys = keys
        self._routes = routes
        self.takes_post = lru_cache(_PATHS)(self._takes_post)  # searching the routes takes up to 50 us

    def has_access(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether the headers carry a valid API key, or this path needs none."""
        return path in PROBES or self._keys.authorise(headers)

    def _takes_post(self, path: str, root_path: str = "") -> bool:
        scope = {"type": "http", "method": "POST", "path": path, "root_path": root_path, "headers": []}
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)


class GuardMiddleware:
    """Plain ASGI. Answers what `rule` and the limits on the head refuse."""

    def __init__(self, app: ASGIApp, rule: EntryRule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        refusal = self._judge(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problems.answer_to(Request(scope), refusal)(scope, receive, send)

    def _judge(self, scope: Scope) -> RequestError | None:
        if (refusal := _head_too_large(scope)) is not None:
            return refusal
        if not self._rule.has_access(scope["path"], scope["headers"]):
            return Unauthorized("send one of the server's keys as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        if scope["method"] == "POST" and self._rule.takes_post(scope["path"], scope.get("root_path", "")):
            return _no_room(scope)
        return None


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
    return pipeline.admission.rejection(announced_bytes(length, pipeline.settings.max_body_bytes))


def cors_options(origins: str) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware for origins separated by commas. No cookies, so no credentials."""
    return {
        "allow_origins": [origin.strip() for origin in origins.split(",") if origin.strip()],
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "X-Request-Timeout-Ms"],
        "expose_headers": ["Retry-After", "Retry-After-Ms", "Server-Timing", "X-Request-Id"],
        "max_age": 600,
    }
