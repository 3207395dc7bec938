"""Who may come in: a bounded number of requests, and an honest word to the others about when to come back.

Used on the event loop alone, so it needs no lock.
"""

import time
from collections.abc import Callable
from typing import Final

from service.errors import NotReady, QueueFull

_MEMORY: Final = 0.95  # of the drain rate: what left 20 places ago counts a third
_UNKNOWN_S: Final = 1.0  # said to come back in, before anything has been measured


class Permit:
    """One place in the house. Released once, when the work ends; not when its client stops waiting."""

    def __init__(self, on_release: Callable[[], None]) -> None:
        self._on_release: Callable[[], None] | None = on_release

    def release(self, *_: object) -> None:
        """Give the place back. Idempotent; takes any arguments so that it can be a done-callback."""
        give_back, self._on_release = self._on_release, None
        if give_back is not None:
            give_back()


class Admission:
    """Counts the places taken and measures how fast they become free."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.in_flight = 0
        self.closed_because: str | None = None
        self._clock = clock
        self._mark = 0.0  # when a place last became free, or the house ceased to be empty
        self._busy_s = 0.0  # decaying sums: seconds that ...
        self._freed = 0.0  # ... this many places took to become free

    def enter(self) -> Permit:
        """Take a place.

        Raises QueueFull when there is none, NotReady when the house is closed.
        """
        if self.closed_because is not None:
            raise NotReady(f"{self.closed_because}; send the request to another replica, or come back.")
        if self.in_flight >= self.limit:
            raise QueueFull(
                f"{self.in_flight} requests are in flight, at most {self.limit} are taken "
                "(ALIGNSEG_MAX_IN_FLIGHT). Come back after Retry-After.",
                retry_after_s=self.drain_s(),
            )
        if self.in_flight == 0:
            self._mark = self._clock()
        self.in_flight += 1
        return Permit(self._leave)

    def close(self, because: str) -> None:
        """Let nobody in any more."""
        self.closed_because = because

    def drain_s(self) -> float:
        """Seconds until all that is in flight now is done, from the measured rate."""
        return self.in_flight * self._busy_s / self._freed if self._freed else _UNKNOWN_S

    def _leave(self) -> None:
        now = self._clock()
        # Sums rather than a mean of intervals: a batch frees its places in one burst.
        self._busy_s = _MEMORY * self._busy_s + (now - self._mark)
        self._freed = _MEMORY * self._freed + 1.0
        self._mark = now
        self.in_flight -= 1
