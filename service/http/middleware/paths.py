"""The path of a request as the routes know it: without ALIGNSEG_ROOT_PATH and without slashes at its end."""

from functools import lru_cache
from typing import Final

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_CACHED_PATHS: Final = 256
# Pages with relative addresses of their files: there a slash at the end, or its absence, makes a difference.
_PAGES: Final = frozenset({"/", "/docs"})


@lru_cache(_CACHED_PATHS)
def route_path(path: str, root_path: str) -> str:
    """The path without `root_path`, if it has it: proxies may remove it or not. /segment/ is the same as /segment."""
    if path == root_path or path.startswith(f"{root_path}/"):
        path = path[len(root_path) :]
    return path.rstrip("/") or "/"


class PathMiddleware:
    """Plain ASGI. Replaces the path in the scope. Redirects browsers to the one address of a page."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or redirect it."""
        if scope["type"] == "http":
            path = scope["path"]
            root_path = self._root_path or scope.get("root_path", "")  # Ray Serve has a prefix of its own
            scope["path"] = route = route_path(path, root_path)
            if route in _PAGES and scope["method"] in {"GET", "HEAD"} and (location := self._location(path, route)):
                await RedirectResponse(location)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _location(self, path: str, route: str) -> str | None:
        """Relative, so that it is right behind a proxy that removes a prefix. None if the address is right already."""
        if route == "/":
            return None if path.endswith("/") else path.rpartition("/")[2] + "/"
        return f"..{route}" if path.endswith("/") else None
