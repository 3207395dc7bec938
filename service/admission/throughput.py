"""How fast work is done, measured while there is any."""

import time
from collections.abc import Callable
from typing import Final

_MEMORY: Final = 0.98  # what was done 50 places ago counts a third
_UNKNOWN_S: Final = 1.0  # said before anything has been measured


class ThroughputMeter:
    """Places that become free per second, idle time left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mark = 0.0  # when a place last became free, or the house ceased to be empty
        self._busy_s = 0.0  # decaying sums: seconds that ...
        self._freed = 0.0  # ... this many places took to become free

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return self._busy_s > 0

    @property
    def per_second(self) -> float:
        """Places a second."""
        return self._freed / self._busy_s

    def begins(self, work_before: int) -> None:
        """One more piece of work."""
        if work_before == 0:
            self._mark = self._clock()

    def done(self, *, was_work: bool) -> None:
        """A piece of work is done, or (was_work False) only gone."""
        now = self._clock()
        if was_work:
            # Sums rather than a mean of intervals: a batch frees its places in one burst.
            self._busy_s = _MEMORY * self._busy_s + (now - self._mark)
            self._freed = _MEMORY * self._freed + 1.0
            self._mark = now

    def seconds_for(self, work: int) -> float:
        """How long `work` places take; when nothing has moved for longer than that, as long again."""
        if not work:
            return 0.0
        return max(work / self.per_second, self._clock() - self._mark) if self.known else _UNKNOWN_S
