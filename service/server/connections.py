"""Connections that hold resources without progress: clients that do not read their response, and idle connections."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.observers import never_raises

CHECK_INTERVAL_S: Final = 1.0
STALL_TIMEOUT_S: Final = 10.0  # the longest pause of a client that reads its response
MIN_BYTES_PER_S: Final = 8000  # a client that reads more slowly counts as paused
MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024  # of all unread responses; above it the slowest readers are disconnected


@dataclass(slots=True)
class _UnreadResponse:
    """unsent: bytes in the write buffer. stalls_at: on the loop's clock; bytes that the client reads postpone it."""

    unsent: int
    stalls_at: float

    def update(self, unsent: int, now: float) -> None:
        extension_s = max(0, self.unsent - unsent) / MIN_BYTES_PER_S
        self.stalls_at = min(self.stalls_at + extension_s, now + STALL_TIMEOUT_S)
        self.unsent = unsent


class SlowReaders:
    """The responses of one port that wait in memory for their clients; those that stall are dropped.

    on_abort: called for each connection that is aborted.
    """

    def __init__(self, on_abort: Callable[[], object] = lambda: None, max_bytes: int = MAX_UNSENT_BYTES) -> None:
        self._on_abort = never_raises(on_abort)
        self._max_bytes = max_bytes
        self._unread: dict[asyncio.Transport, _UnreadResponse] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a connection whose response is complete. Most responses are sent by then and need no watching."""
        if not transport.get_write_buffer_size():
            return
        self._unread.setdefault(transport, _UnreadResponse(0, loop.time() + STALL_TIMEOUT_S))
        self._check(loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for transport, response in list(self._unread.items()):
            response.update(transport.get_write_buffer_size(), now)
            if not response.unsent:
                del self._unread[transport]
            elif response.stalls_at < now:
                self._abort(transport)
        self._enforce_max_bytes()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(CHECK_INTERVAL_S, self._check, loop) if self._unread else None

    def _enforce_max_bytes(self) -> None:
        """Abort the slowest readers until the rest fits. A single response always fits."""
        total = sum(response.unsent for response in self._unread.values())
        slowest_first = sorted(self._unread.items(), key=lambda item: item[1].stalls_at)
        for transport, response in slowest_first[:-1]:
            if total <= self._max_bytes:
                break
            total -= response.unsent
            self._abort(transport)

    def _abort(self, transport: asyncio.Transport) -> None:
        del self._unread[transport]
        self._on_abort()
        transport.abort()


class IdleConnections:
    """The connections of one port that wait for a request. The longest idle one is closed when a new one needs room."""

    def __init__(self) -> None:
        self._idle: dict[asyncio.Transport, None] = {}  # ordered by the time since which they are idle

    def add(self, transport: asyncio.Transport) -> None:
        """The connection is new, or its latest request has been answered."""
        self._idle.pop(transport, None)
        self._idle[transport] = None

    def discard(self, transport: asyncio.Transport) -> None:
        """A request's head is complete, or the connection has ended. With an incomplete head it stays idle."""
        self._idle.pop(transport, None)

    def abort_oldest(self) -> bool:
        """Abort the connection that has been idle longest. Returns False when none is idle."""
        transport = next(iter(self._idle), None)
        if transport is None:
            return False
        self.discard(transport)
        transport.abort()
        return True
