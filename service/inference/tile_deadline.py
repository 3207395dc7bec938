"""Rejects a tiled image once the completed tiles show that the rest will miss the deadline."""

import time
from collections.abc import Callable
from typing import Final

from service.errors import ImageTooLarge

_MIN_TILES: Final = 4  # fewer completed tiles are no basis for an estimate


class TileDeadline:
    """Counts completed tiles of one image.

    count: tiles of the image. deadline: on the clock. concurrent: tiles computed at one time; the estimate begins after
    twice as many, because nothing completes while the first ones are computed.
    """

    def __init__(
        self, count: int, deadline: float, concurrent: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._deadline = deadline
        self._min_tiles = max(_MIN_TILES, 2 * concurrent)
        self._clock = clock
        self._began = clock()
        self._done = 0

    def tile_done(self) -> None:
        """Record a completed tile. Raises ImageTooLarge once the others will clearly miss the deadline.

        The fewer tiles are done, the larger the margin: after 8 the others must need 1.5 times the time that is left.
        """
        self._done += 1
        now = self._clock()
        tile_s, left_s = (now - self._began) / self._done, self._deadline - now
        needed_s = (self._count - self._done) * tile_s
        if self._done >= self._min_tiles and needed_s > left_s * (1 + 4 / self._done):
            raise ImageTooLarge(
                f"The image has {self._count} tiles: {self._done} took {now - self._began:.1f} s, all would take about "
                f"{self._count * tile_s:.0f} s, and the response is due in {left_s:.1f} s. Scale the image down, "
                "remove tile=true, or raise X-Request-Timeout-Ms (at most ALIGNSEG_REQUEST_TIMEOUT_MS)."
            )
