"""Measures how many requests per second the server completes. Idle time is not counted."""

import time
from collections.abc import Callable
from typing import Final

_DECAY: Final = 0.98  # a request completed 50 requests ago has a third of the weight of the latest
_UNKNOWN_S: Final = 1.0  # the estimate before anything has been measured


class ThroughputMeter:
    """Completed requests per second, from exponentially decaying sums."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_event = 0.0  # when a request last completed, or when the server stopped being idle
        self._busy_s = 0.0  # decaying sum: the seconds in which ...
        self._completed = 0.0  # ... this many requests were completed

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return self._busy_s > 0

    @property
    def per_second(self) -> float:
        """Completed requests per second. Only valid when `known`."""
        return self._completed / self._busy_s

    def started(self, active_before: int) -> None:
        """Record the start of a request. active_before: active requests before it."""
        if active_before == 0:
            self._last_event = self._clock()

    def finished(self, *, was_active: bool) -> None:
        """Record the end of a request. was_active: False for an upload that never became work; it is not counted."""
        now = self._clock()
        if was_active:
            # Sums instead of a mean of intervals: all requests of a batch complete at the same moment.
            self._busy_s = _DECAY * self._busy_s + (now - self._last_event)
            self._completed = _DECAY * self._completed + 1.0
            self._last_event = now

    def seconds_for(self, requests: int) -> float:
        """Return the estimated seconds until `requests` requests are completed.

        When nothing has completed for longer than the estimate, the estimate is that time.
        """
        if not requests:
            return 0.0
        return max(requests / self.per_second, self._clock() - self._last_event) if self.known else _UNKNOWN_S
