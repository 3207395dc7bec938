"""Measures how many tensors per second the server completes. Idle time is not counted.

An ordinary image is one tensor, a tiled one has one per tile.
"""

import time
from collections.abc import Callable
from typing import Final

_DECAY: Final = 0.98  # a tensor completed 50 tensors ago has a third of the weight of the latest
_UNKNOWN_S: Final = 1.0  # the estimate before anything has been measured


class ThroughputMeter:
    """Completed tensors per second, from exponentially decaying sums."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_event = 0.0  # when a tensor was last completed, or when the server stopped being idle
        self._busy_s = 0.0  # decaying sum: the seconds in which ...
        self._completed = 0.0  # ... this many tensors were completed

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return self._busy_s > 0

    @property
    def per_second(self) -> float:
        """Completed tensors per second. Only valid when `known`."""
        return self._completed / self._busy_s

    def started(self, active_before: int) -> None:
        """Record the start of a request. active_before: active requests before it."""
        if active_before == 0:
            self._last_event = self._clock()

    def more_queued(self) -> None:
        """Record that an image was split into tiles. Its decoding until now is latency, which the rate must not count.

        A large image decodes for as long as many of its tiles take. Counted for the first of them, the rate would be
        far too low until dozens are completed.
        """
        self._last_event = self._clock()

    def completed(self) -> None:
        """Record a completed tensor."""
        now = self._clock()
        # Sums instead of a mean of intervals: all tensors of a batch complete at the same moment.
        self._busy_s = _DECAY * self._busy_s + (now - self._last_event)
        self._completed = _DECAY * self._completed + 1.0
        self._last_event = now

    def seconds_for(self, tensors: int) -> float:
        """Return the estimated seconds until `tensors` tensors are completed.

        When nothing has completed for longer than the estimate, the estimate is that time.
        """
        if not tensors:
            return 0.0
        return max(tensors / self.per_second, self._clock() - self._last_event) if self.known else _UNKNOWN_S
