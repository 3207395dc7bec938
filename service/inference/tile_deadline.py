"""Whether a picture's many tiles will be done in time, told from those that are done: not only when it is too late."""

import time
from collections.abc import Callable
from typing import Final

from service.errors import ImageTooLarge

_ENOUGH: Final = 4  # tiles that say something about the others


class TileDeadline:
    """Told of each tile that is done.

    count: tiles of the picture. deadline: on `clock`. at_once: how many the engines have at a time; the first of them
    say little, since nothing comes out while all are filled.
    """

    def __init__(
        self, count: int, deadline: float, at_once: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._deadline = deadline
        self._enough = max(_ENOUGH, 2 * at_once)
        self._clock = clock
        self._began = clock()
        self._done = 0

    def tile_done(self) -> None:
        """Raises ImageTooLarge once it is plain that the others will not be done by the deadline.

        The fewer are done, the plainer it has to be: after 8 the others must take half as long again as is left.
        """
        self._done += 1
        now = self._clock()
        each_s, left_s = (now - self._began) / self._done, self._deadline - now
        needed_s = (self._count - self._done) * each_s
        if self._done >= self._enough and needed_s > left_s * (1 + 4 / self._done):
            raise ImageTooLarge(
                f"the picture takes {self._count} tiles; the first {self._done} took {now - self._began:.1f} s, so all "
                f"would take about {self._count * each_s:.0f} s, and the answer is due in {left_s:.1f} s. Scale the "
                "picture down, leave tile=true out, or give it longer: X-Request-Timeout-Ms, at most "
                "ALIGNSEG_REQUEST_TIMEOUT_MS."
            )
