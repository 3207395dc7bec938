"""Rejects a tiled image once the completed tiles show that the rest will miss the deadline."""

import time
from collections.abc import Callable
from typing import Final

from service.errors import ImageTooLarge

_MIN_TILES: Final = 4  # fewer completed tiles are no basis for an estimate
_MARGIN: Final = 1.25  # of the advice: what is advised should succeed on a busier server too


class TileDeadline:
    """Counts completed tiles of one image.

    count: tiles of the image. deadline: on the clock. concurrent: tiles computed at one time; the estimate begins after
    twice as many, because nothing completes while the first ones are computed.
    advice: from the number of tiles that can be computed in time to a sentence for the client. max_s: the longest
    timeout that a client may set.
    """

    def __init__(
        self,
        count: int,
        deadline: float,
        concurrent: int = 1,
        clock: Callable[[], float] = time.monotonic,
        *,
        advice: Callable[[int], str] = lambda tiles: "Scale the image down.",
        max_s: float = 0.0,
    ) -> None:
        self._count = count
        self._deadline = deadline
        self._min_tiles = max(_MIN_TILES, 2 * concurrent)
        self._clock = clock
        self._advice = advice
        self._max_s = max_s
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
                f"{self._count * tile_s:.0f} s, and the response is due in {left_s:.1f} s. {self._what_to_do(tile_s)}"
            )

    def _what_to_do(self, tile_s: float) -> str:
        """A longer timeout is advised only where it suffices: the default one is the maximum."""
        in_time = int((self._deadline - self._began) / tile_s / _MARGIN)
        sentences = [f"At this rate about {in_time} tiles are done in time. {self._advice(in_time)}"]
        timeout_s = _MARGIN * self._count * tile_s
        if timeout_s < self._max_s:
            sentences.append(f"Or set X-Request-Timeout-Ms to {1000 * timeout_s:.0f}.")
        return " ".join(sentences)
