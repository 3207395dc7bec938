"""A thread that writes log lines: a reader that stalls with the pipe full blocks this thread and nothing else."""

import logging
import threading
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 4000  # records that wait for a stalled reader; later ones are dropped
# How long a caller waits for its lines, so that they are written before what follows, even if that is a crash. A
# stalled reader costs this once: nobody waits again until it reads.
WAIT_S: Final = 0.05

Records = list[logging.LogRecord]


class WriterThread:
    """Calls `write` with all waiting records, in order. The thread starts with the first record."""

    def __init__(self, write: Callable[[Records], None], max_waiting: int = MAX_WAITING) -> None:
        self._write = write
        self._max_waiting = max_waiting
        self._waiting: Records = []
        self._changed = threading.Condition()
        self._writing = False
        self._stalled = False
        self._thread: threading.Thread | None = None

    def submit(self, records: Records) -> int:
        """Pass records on, and wait for WAIT_S until they are written. Returns how many were dropped."""
        with self._changed:
            accepted = records[: max(0, self._max_waiting - len(self._waiting))]
            self._waiting += accepted
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if not self._stalled:
                self._stalled = not self._changed.wait_for(self._is_idle, WAIT_S)
        return len(records) - len(accepted)

    def wait(self, timeout_s: float) -> None:
        """Wait until all records are written, for at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(self._is_idle, timeout_s)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._writing

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._stalled &= bool(self._waiting)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                records, self._waiting, self._writing = self._waiting, [], True
            self._write(records)
