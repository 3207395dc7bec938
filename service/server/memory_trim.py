"""Returns memory to the system once large images are done.

glibc keeps what is freed below the top of its heap, and a map of 12 megapixels lies in its heap: after sixteen large
images at a time the process kept hundreds of megabytes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from service.admission.pixel_budget import PixelBudget
from service.server.process import trim

IDLE_INTERVAL_S: Final = 1.0
BUSY_INTERVAL_S: Final = 10.0  # under load the memory is needed again at once


class MemoryTrimmer:
    """Trims in a thread, once large images are done: at most once a second when idle, every ten seconds under load."""

    def __init__(self, work: Callable[[], None] = trim, clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._trimmed_at = clock()
        self._released = 0
        self._running: asyncio.Future[None] | None = None

    def on_tick(self, pixels: PixelBudget) -> None:
        """Called ten times a second. Starts a trim if there is something to return."""
        interval_s = BUSY_INTERVAL_S if pixels.reserved else IDLE_INTERVAL_S
        is_due = self._clock() - self._trimmed_at >= interval_s and (self._running is None or self._running.done())
        if pixels.large_released == self._released or not is_due:
            return
        self._released, self._trimmed_at = pixels.large_released, self._clock()
        self._running = asyncio.get_running_loop().run_in_executor(None, self._work)
