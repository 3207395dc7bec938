"""What has to happen below ASGI: an end to heads and silence that uvicorn would wait for without end, refusals that
cost next to nothing, and HTTP/1.1 for who offers more.
"""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from service.server import open_file_limit
from service.server.flood import Flood
from service.server.idle_connections import Idle
from service.server.slow_readers import Unsent
from service.server.strict_http import StrictProtocol

MAX_HEAD_BYTES: Final = 64 * 1024  # while it comes in; what is complete is judged in routes/guard.py
HEAD_TIMEOUT_S: Final = 10.0
# Longer than load balancers keep an idle connection (60 s, mostly): whoever closes first must not be the server, or a
# request that is just being sent meets a closed door.
KEEP_ALIVE_S: Final = 75
MAX_CONNECTIONS: Final = 4096
_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_IGNORED: Final = b"\r\nignored:"  # as long, so that nobody's count of bytes changes
Refuse = Callable[[bytes], tuple[bytes, int] | None]  # first bytes -> an answer, and the size of what it answers


class GuardedHttpProtocol(StrictProtocol):
    """With an end to everything.

    refuse: asked with the first bytes of each message. What it returns is the answer, and the message is thrown away.
    flood, unsent, idle: one for all connections. most_connections: beyond, an idle one is ended for each new one.
    """

    def __init__(
        self,
        *args: Any,
        reject: Refuse | None = None,
        flood: Flood | None = None,
        unsent: Unsent | None = None,
        idle: Idle | None = None,
        most_connections: int = MAX_CONNECTIONS,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._unsent = unsent or Unsent()
        self._refuse = reject
        self._flood = flood or Flood()
        self._idle = idle or Idle()
        self._most_connections = most_connections
        self._unwanted = 0  # bytes to come of a message that has its answer
        self._refused_at = float("-inf")
        self._head_bytes = 0
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, but not for ever."""
        super().connection_made(transport)
        if len(self.connections) > self._most_connections and not self._idle.make_room():
            transport.abort()
        else:
            self._idle.waits(self.transport)
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._idle.works(self.transport)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse, or hand on; count bytes until the head is complete."""
        if self._has_ended:
            return
        if self._unwanted:
            data = self._throw_away(data)
        elif self._refuse is not None and self._is_free() and (refused := self._refuse(data)) is not None:
            answer, size = refused
            self.transport.write(answer)
            self._unwanted, self._refused_at = size - len(data), self.loop.time()
            self._flood.refused(self.loop)
            self._idle.waits(self.transport)
            return
        if data:
            super().data_received(data if self._in_body else _without_upgrade(data))
            self._bound_head(len(data))
            self._bound_silence()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there. Raises ValueError, through the parser, for one that HTTP forbids."""
        self._idle.works(self.transport)
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Go on, but not for ever with a client that does not take its answer."""
        super().on_response_complete()
        if self._is_idle():  # else the next message has begun
            self._idle.waits(self.transport)
        self._unsent.watch(self.transport, self.loop)

    def timeout_keep_alive_handler(self) -> None:
        """Not for a connection whose latest message was refused just now: that set no timer of its own."""
        if self._refused_lately():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _is_free(self) -> bool:
        """Whether a message may begin and be answered at once."""
        return not self._in_message and self._is_idle() and not self.flow.write_paused

    def _throw_away(self, data: bytes) -> bytes:
        rest = data[self._unwanted :]
        self._unwanted = max(0, self._unwanted - len(data))
        return rest

    def _bound_head(self, size: int) -> None:
        if not self._in_head:
            return
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.end_with_400(f"the head has more than {MAX_HEAD_BYTES} bytes; expected fewer. Send less of it.")
        elif self._patience is None:
            self._wait_for_head()

    def _bound_silence(self) -> None:
        """Any byte ends uvicorn's wait for a request, and not each begins one: some belong to a body nobody reads."""
        if self.transport.is_closing() or self._in_head or not self._is_idle():
            return
        if self._in_message:
            self._stop_waiting()  # an answered upload may take its time, as long as it goes on
        if self._patience is None and self.timeout_keep_alive_task is None:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refused_lately(self) -> bool:
        return self.loop.time() - self._refused_at < self.timeout_keep_alive

    def _give_up(self) -> None:
        self._patience = None
        if self._refused_lately():
            self._wait_for_head()
        elif not self.transport.is_closing():
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The start of a message, without the wish for another protocol: a server may pass that over (RFC 9110, 7.8).

    Java's client and `curl --http2` offer HTTP/2 with every request. httptools would take the body for that already,
    and uvicorn answer as if none had come.
    """
    end = data.find(b"\r\n\r\n")
    found = _UPGRADE.search(data, 0, len(data) if end < 0 else end)
    return data if found is None else b"".join((data[: found.start()], _IGNORED, data[found.end() :]))


def options(reject: Refuse | None = None, count: Callable[[str], object] = lambda reason: None) -> dict[str, Any]:
    """Arguments of uvicorn.Config that all our ports share. Our own log has a line a request, so uvicorn's is off.

    reject: see GuardedHttpProtocol.
    count: called for faults outside any request: "malformed-http", "response-not-read".
    """
    http = partial(
        GuardedHttpProtocol,
        reject=reject,
        flood=Flood(),
        idle=Idle(),
        most_connections=open_file_limit.allow(MAX_CONNECTIONS),
        unsent=Unsent(partial(count, "response-not-read")),
        on_malformed=partial(count, "malformed-http"),
    )
    return {
        "http": http,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "ws": "none",
    }
