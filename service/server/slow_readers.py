"""Answers that their clients do not take: they lie in memory until the connection ends, so it has to end some time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LOOK_S: Final = 1.0
PATIENCE_S: Final = 10.0  # how long a client may pause
SLOWEST_BYTES_S: Final = 8000  # who takes less than that has paused
MOST_BYTES: Final = 256 * 1024 * 1024  # of all answers that wait; beyond, who takes his most slowly is cut off


@dataclass(slots=True)
class _Waiting:
    """left: bytes not sent yet. patient_until: on the loop's clock; bytes that are taken put it off."""

    left: int
    patient_until: float

    def snapshot(self, left: int, now: float) -> None:
        more_s = max(0, self.left - left) / SLOWEST_BYTES_S
        self.patient_until = min(self.patient_until + more_s, now + PATIENCE_S)
        self.left = left


class Unsent:
    """All answers of one port that wait for their clients. on_cut: called for each that is given up."""

    def __init__(self, on_cut: Callable[[], object] = lambda: None, most_bytes: int = MOST_BYTES) -> None:
        self._on_cut = on_cut
        self._most_bytes = most_bytes
        self._waiting: dict[asyncio.Transport, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Told when an answer is complete; most are sent by then."""
        if not transport.get_write_buffer_size():
            return
        self._waiting.setdefault(transport, _Waiting(0, loop.time() + PATIENCE_S))
        self._look(loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for transport, waiting in list(self._waiting.items()):
            waiting.snapshot(transport.get_write_buffer_size(), now)
            if not waiting.left:
                del self._waiting[transport]
            elif waiting.patient_until < now:
                self._cut(transport)
        self._make_room()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(LOOK_S, self._look, loop) if self._waiting else None

    def _make_room(self) -> None:
        """One answer always fits."""
        total = sum(waiting.left for waiting in self._waiting.values())
        slowest_first = sorted(self._waiting.items(), key=lambda item: item[1].patient_until)
        for transport, waiting in slowest_first[:-1]:
            if total <= self._most_bytes:
                break
            total -= waiting.left
            self._cut(transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        del self._waiting[transport]
        self._on_cut()
        transport.abort()
