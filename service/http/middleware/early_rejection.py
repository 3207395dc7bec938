"""Rejects requests by their heads alone, before any work: oversized heads, missing API keys, and overload.

In this order: limits on the head, then API keys, then, while the server is at capacity, every POST to a path that
supports it.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HeadersTooLarge, RequestError, Unauthorized, UriTooLong
from service.http import problems
from service.http.auth import ApiKeys
from service.http.security_headers import PROBE_PATHS
from service.http.uploads import declared_size
from service.inference.pipeline import Pipeline

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_QUERY_BYTES: Final = 8 * 1024
_CACHED_PATHS: Final = 256  # clients may send any number of paths


class EarlyRejectionRule:
    """Which requests the capacity check applies to. EarlyRejectionMiddleware and FastReject share it.

    A request without a valid key (401), or to a path without a POST route (404, 405), never reaches the capacity check:
    it gets the same response at any load and cannot prolong an overload.
    keys: empty for a server that needs none. routes: the application's; those added later count too.
    root_path: what ALIGNSEG_ROOT_PATH adds to the paths of requests. Methods take paths without it, see `route_path`.
    """

    def __init__(self, keys: ApiKeys, routes: Sequence[BaseRoute], root_path: str = "") -> None:
        self.root_path = root_path
        self._keys = keys
        self._routes = routes
        self.takes_post = lru_cache(_CACHED_PATHS)(self._takes_post)  # searching the routes takes up to 50 us

    def has_access(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether the headers carry a valid API key, or this path needs none."""
        return path in PROBE_PATHS or self._keys.authorise(headers)

    def _takes_post(self, path: str, root_path: str = "") -> bool:
        scope = {"type": "http", "method": "POST", "path": path, "root_path": root_path, "headers": []}
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)


class EarlyRejectionMiddleware:
    """Plain ASGI. Responds to the requests that `rule` and the limits on the head reject."""

    def __init__(self, app: ASGIApp, rule: EarlyRejectionRule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond to it here."""
        error = self._rejection(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await problems.error_response(Request(scope), error)(scope, receive, send)

    def _rejection(self, scope: Scope) -> RequestError | None:
        if (error := _head_too_large(scope)) is not None:
            return error
        if not self._rule.has_access(scope["path"], scope["headers"]):
            return Unauthorized(
                "Missing or unknown API key. Send a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            )
        if scope["method"] == "POST" and self._rule.takes_post(scope["path"], scope.get("root_path", "")):
            return _overload(scope)
        return None


def _head_too_large(scope: Scope) -> RequestError | None:
    headers = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        return HeadersTooLarge(
            f"The request has {len(headers)} headers of {size} bytes, limits {MAX_HEADERS} headers and "
            f"{MAX_HEADER_BYTES} bytes. Send fewer or shorter headers."
        )
    if (length := len(scope["query_string"])) > MAX_QUERY_BYTES:
        return UriTooLong(f"The query has {length} bytes, limit {MAX_QUERY_BYTES}. Send images in the request body.")
    return None


def _overload(scope: Scope) -> RequestError | None:
    pipeline: Pipeline | None = getattr(scope["app"].state, "pipeline", None)
    if pipeline is None:
        return None
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"").decode("latin-1")
    return pipeline.admission.rejection(declared_size(length, pipeline.settings.max_body_bytes))
