"""Limits the decoded pixels in memory: most of a request's memory, and unknown until the image header is read."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from service.errors import Overloaded

ReservePixels = Callable[[int], None]
LARGE_PIXELS: Final = 1_000_000


class PixelBudget:
    """Limits the pixels of all images that are decoded at one time. Thread-safe: decoder threads reserve.

    limit: pixels. reserved: pixels at the moment. large_released: pixels so far of large images that are done: each
    leaves free memory in the C library. retry_after_s: called for the Retry-After of a rejection.
    """

    def __init__(self, limit: int, retry_after_s: Callable[[], float]) -> None:
        self.limit = limit
        self.reserved = 0
        self.large_released = 0
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()

    @contextmanager
    def reservation(self) -> Generator[ReservePixels, None, None]:
        """Yield a function that reserves pixels or raises Overloaded; on exit all that it reserved is released."""
        total = 0

        def reserve(pixels: int) -> None:
            nonlocal total
            self._reserve(pixels)
            total += pixels

        try:
            yield reserve
        finally:
            with self._lock:
                self.reserved -= total
                self.large_released += total if total >= LARGE_PIXELS else 0

    def _reserve(self, pixels: int) -> None:
        with self._lock:
            # A single image always fits: ALIGNSEG_MAX_PIXELS limits it.
            if self.reserved and self.reserved + pixels > self.limit:
                raise Overloaded(
                    f"Server overloaded: {self.reserved} decoded pixels in memory, {pixels} more in this image, limit "
                    f"{self.limit} (ALIGNSEG_MAX_PIXELS_IN_FLIGHT). Retry after the delay in Retry-After.",
                    self._retry_after_s(),
                    "pixels",
                )
            self.reserved += pixels
