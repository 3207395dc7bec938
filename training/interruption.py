"""SIGINT and SIGTERM end a run after the current step or image, so that its state can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was asked to stop in the middle of a validation, which has to be repeated."""


@dataclass
class Stop:
    """Whether a run was asked to end. Further signals have no effect: torchrun repeats those of the terminal."""

    requested: bool = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.requested = True


@contextmanager
def stopping() -> Iterator[Stop]:
    """Handle both signals inside the context; the previous handlers are restored on exit."""
    stop = Stop()
    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_stop(_worker: int = 0) -> None:
    """For worker processes: a terminal signals the whole group, but the current step still needs its workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
