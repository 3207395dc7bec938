"""What has to happen below ASGI: an end to heads and silence that uvicorn would wait for without end, and refusals
that cost next to nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024  # while it comes in; what is complete is judged in routes/guard.py
HEAD_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 4096
Refuse = Callable[[bytes, bytes, Sequence[tuple[bytes, bytes]]], bytes | None]  # method, url, headers -> an answer


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, with an end to everything. refuse: asked with each head; what it returns is the answer."""

    def __init__(self, *args: Any, refuse: Refuse | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refuse = refuse
        self._refused = False  # whether the message that comes in has its answer already
        self._head_bytes = 0
        self._in_head = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, but not for ever."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count bytes until the head is complete."""
        super().data_received(data)
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request exceeds {MAX_HEAD_BYTES} bytes.")
        elif self._patience is None:
            self._wait_for_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes, self._refused = True, 0, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._stop_waiting()
        if (answer := self._refusal()) is None:
            super().on_headers_complete()
            return
        self._refused = True
        self.transport.write(answer)
        self._wait_for_head()  # for the rest of this message, too

    def on_body(self, body: bytes) -> None:
        """Of a refused message it is thrown away."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The connection is free for another message."""
        if not self._refused:
            super().on_message_complete()

    def _refusal(self) -> bytes | None:
        free = self.cycle is None or self.cycle.response_complete  # else a pipelined message would be answered early
        if self._refuse is None or not free or self.parser.get_http_version() != "1.1":
            return None
        if not self.parser.should_keep_alive() or self.parser.should_upgrade():
            return None
        return self._refuse(self.parser.get_method(), self.url, self.headers)

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()


def options(refuse: Refuse | None = None) -> dict[str, Any]:
    """Arguments of uvicorn.Config that all our ports share. Our own log has a line a request, so uvicorn's is off."""
    http = partial(BoundedProtocol, refuse=refuse)
    return {"http": http, "log_config": None, "access_log": False, "server_header": False, "ws": "none"}
