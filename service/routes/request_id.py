"""X-Request-Id: the client's own, or one made here; on every answer and in every log line about it."""

import re
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAME: Final = "X-Request-Id"
_SAFE: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # goes into logs: no spaces, no line breaks


class RequestIdMiddleware:
    """Plain ASGI: Starlette's BaseHTTPMiddleware would hide from routes that a client has left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request and its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(NAME, "")
        request_id = given if _SAFE.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[NAME] = request_id
            await send(message)

        await self._app(scope, receive, send_named)
