"""HTTP/1.1 below ASGI: time and size limits that uvicorn lacks, rejections before parsing, no protocol upgrades."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from service.server.connections import IdleConnections, SlowReaders
from service.server.forwarded_client import Address
from service.server.process import raise_open_file_limit
from service.server.strict_http import StrictProtocol
from service.settings import KEEP_ALIVE_S

MAX_HEAD_BYTES: Final = 64 * 1024  # while it arrives; http/middleware/early_rejection.py limits complete heads
HEAD_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 4096
_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_IGNORED: Final = b"\r\nignored:"  # of the same length, so that byte counts stay right
# The first bytes of a message, and who sent them -> a response, and the message's size.
Reject = Callable[[bytes, Address], tuple[bytes, int] | None]


class GuardedHttpProtocol(StrictProtocol):
    """StrictProtocol with a limit on the time and size of everything a client may leave unfinished.

    reject: called with the first bytes of each message and the peer's address. If it returns a response, that is sent
    and the message is discarded unparsed.
    slow_readers, idle_connections: shared by all connections of a port. max_connections: above it an idle connection
    is closed for each new one.
    """

    def __init__(
        self,
        *args: Any,
        reject: Reject | None = None,
        slow_readers: SlowReaders | None = None,
        idle_connections: IdleConnections | None = None,
        max_connections: int = MAX_CONNECTIONS,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._reject = reject
        self._slow_readers = slow_readers or SlowReaders()
        self._idle_connections = idle_connections or IdleConnections()
        self._max_connections = max_connections
        self._bytes_to_discard = 0  # still to come of a message that was rejected
        self._rejected_at = float("-inf")
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, for a limited time."""
        super().connection_made(transport)
        if len(self.connections) > self._max_connections and not self._idle_connections.abort_oldest():
            transport.abort()
        else:
            self._idle_connections.add(self.transport)
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._idle_connections.discard(self.transport)
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reject a message by its first bytes, or parse it."""
        if self._ignores_input:
            return
        if self._bytes_to_discard:
            data = self._discard_bytes(data)
        elif (rejection := self._rejection(data)) is not None:
            response, size = rejection
            self.transport.write(response)
            self._bytes_to_discard, self._rejected_at = size - len(data), self.loop.time()
            self._idle_connections.add(self.transport)
            return
        if data:
            super().data_received(data if self._in_body else _without_upgrade(data))
            self._limit_head(len(data))
            self._limit_silence()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete. Raises ValueError, through the parser, if HTTP forbids such a head."""
        self._idle_connections.discard(self.transport)
        self._stop_head_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Start the next message; watch whether the client reads this response."""
        super().on_response_complete()
        if self._is_idle():  # otherwise the next message has begun
            self._idle_connections.add(self.transport)
        self._slow_readers.watch(self.transport, self.loop)

    def timeout_keep_alive_handler(self) -> None:
        """Keep a connection with a recent rejection: it does not restart uvicorn's timer as other responses do."""
        if self._rejected_recently():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _rejection(self, data: bytes) -> tuple[bytes, int] | None:
        return self._reject(data, self.client) if self._reject is not None and self._is_free() else None

    def _is_free(self) -> bool:
        """Whether a message may begin here and be answered at once."""
        return not self._in_message and self._is_idle() and not self.flow.write_paused

    def _discard_bytes(self, data: bytes) -> bytes:
        """Drop the rest of a rejected message. Returns what follows it."""
        rest = data[self._bytes_to_discard :]
        self._bytes_to_discard = max(0, self._bytes_to_discard - len(data))
        return rest

    def _limit_head(self, size: int) -> None:
        if not self._in_head:
            return
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.reject_with_400(f"The request head exceeds {MAX_HEAD_BYTES} bytes. Send fewer or shorter headers.")
        elif self._head_timer is None:
            self._start_head_timer()

    def _limit_silence(self) -> None:
        """Limit the time until the next head, also after bytes that stop uvicorn's timer without beginning a message.

        Such bytes may belong to the body of a request that was answered without reading it.
        """
        if self.transport.is_closing() or self._in_head or not self._is_idle():
            return
        if self._in_message:
            self._stop_head_timer()  # the upload of an answered request may take its time, as long as it goes on
        if self._head_timer is None and self.timeout_keep_alive_task is None:
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _rejected_recently(self) -> bool:
        return self.loop.time() - self._rejected_at < self.timeout_keep_alive

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._rejected_recently():
            self._start_head_timer()
        elif not self.transport.is_closing():
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The start of a message with its Upgrade header renamed: a server may ignore it (RFC 9110, section 7.8).

    Java's client and `curl --http2` offer HTTP/2 with every request. httptools would take the body for HTTP/2 already,
    and uvicorn would answer as if there were no body.
    """
    end = data.find(b"\r\n\r\n")
    match = _UPGRADE.search(data, 0, len(data) if end < 0 else end)
    return data if match is None else b"".join((data[: match.start()], _IGNORED, data[match.end() :]))


def uvicorn_options(
    reject: Reject | None = None,
    on_connection_error: Callable[[str], object] = lambda reason: None,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> dict[str, Any]:
    """Arguments of uvicorn.Config for each of our ports. Our own log has a line per request, so uvicorn's is off.

    reject: see GuardedHttpProtocol.
    on_connection_error: called with "malformed-http" or "response-not-read", errors outside any request.
    keep_alive_s: how long an idle connection stays open. If the server closed it before a load balancer does (mostly
    after 60 s), a request that is being sent at that moment would be lost.
    """
    http = partial(
        GuardedHttpProtocol,
        reject=reject,
        idle_connections=IdleConnections(),
        max_connections=raise_open_file_limit(MAX_CONNECTIONS),
        slow_readers=SlowReaders(partial(on_connection_error, "response-not-read")),
        on_malformed=partial(on_connection_error, "malformed-http"),
    )
    return {
        "http": http,
        "timeout_keep_alive": keep_alive_s,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "ws": "none",
    }
