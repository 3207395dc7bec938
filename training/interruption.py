"""SIGINT and SIGTERM end a run after the step in hand, so that it can be saved whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether a run was asked to end. Asking twice changes nothing: torchrun repeats what the terminal has sent."""

    wanted: bool = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.wanted = True


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catches the signals meanwhile."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop(_worker: int = 0) -> None:
    """For worker processes: a terminal signals the whole group, but the step in hand still needs its workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
