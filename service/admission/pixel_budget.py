"""Limits the decoded pixels in memory: most of a request's memory, and unknown until the image header is read."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.errors import Overloaded

ReservePixels = Callable[[int], None]


class PixelBudget:
    """Limits the pixels of all images that are decoded at one time. Thread-safe: decoder threads reserve.

    limit: pixels. reserved: pixels at the moment. retry_after_s: called for the Retry-After of a rejection.
    """

    def __init__(self, limit: int, retry_after_s: Callable[[], float]) -> None:
        self.limit = limit
        self.reserved = 0
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
