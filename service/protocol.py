"""Limits on what uvicorn itself would collect without end: a head that never ends, and connections that never speak."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024  # while it comes in; what is complete is judged in routes/guard.py
HEAD_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 4096


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, with an end to everything."""

    _head_bytes = 0
    _in_head = False
    _patience: asyncio.TimerHandle | None = None

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
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

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


def options() -> dict[str, Any]:
    """Arguments of uvicorn.Config that all our ports share. Our own log has a line a request, so uvicorn's is off."""
    return {"http": BoundedProtocol, "log_config": None, "access_log": False, "server_header": False, "ws": "none"}
