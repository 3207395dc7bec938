"""Decoded pixels in the house: what memory is really spent on, and known only once a picture's header has been read."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.errors import Overloaded

ReservePixels = Callable[[int], None]


class PixelBudget:
    """Bounds the pixels of all pictures that are decoded at one time. Safe in threads: decoders ask it."""

    def __init__(self, limit: int, retry_after_s: Callable[[], float]) -> None:
        self.limit = limit
        self.taken = 0
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Generator[ReservePixels, None, None]:
        """Hands out a function that takes pixels, or raises Overloaded; they are given back on the way out."""
        mine = 0

        def take(pixels: int) -> None:
            nonlocal mine
            self._take(pixels)
            mine += pixels

        try:
            yield take
        finally:
            with self._lock:
                self.taken -= mine

    def _take(self, pixels: int) -> None:
        with self._lock:
            if self.taken and self.taken + pixels > self.limit:  # a single picture always fits: max_pixels bounds it
                raise Overloaded(
                    f"{self.taken} pixels are decoded at the moment and this picture has {pixels}; "
                    f"at most {self.limit} fit (ALIGNSEG_MAX_PIXELS_IN_FLIGHT). Come back after Retry-After.",
                    self._retry_after_s(),
                    "pixels",
                )
            self.taken += pixels
