"""A flood of refusals: what it costs is taken from the answers."""

import asyncio
import time
from typing import Final

FLOOD_S: Final = 0.005  # refusals that follow each other more closely are a flood
REST_S: Final = 0.002


class Flood:
    """Refusals that come one upon the other are seen to together, a few every two milliseconds.

    Waking up for each would take the cores and the interpreter's lock from the answers, a dozen times for each answer.
    Nobody waits noticeably longer for it: while there is a flood, an answer takes thirty times as long.
    """

    def __init__(self) -> None:
        self._latest = float("-inf")
        self._resting = False

    def refused(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of a refusal. The rest comes once what the loop has at hand is done."""
        now = loop.time()
        if now - self._latest < FLOOD_S and not self._resting:
            self._resting = True
            loop.call_soon(self._rest)
        self._latest = now

    def _rest(self) -> None:
        self._resting = False
        time.sleep(REST_S)  # the whole loop, on purpose; the threads of engine and codecs go on
