"""Log lines that are written together: a write for each would wake the log's reader each time."""

import logging
import threading
from typing import Final, TextIO

LATE_S: Final = 0.1


class BundlingHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one logger together, at most LATE_S late; what others say at once, and all in order.

    together: that logger's name. A write a request took a twentieth of the cores and of the event loop's time.
    """

    def __init__(self, stream: TextIO, together: str) -> None:
        super().__init__(stream)
        self._together = together
        self._kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        if record.name != self._together:
            self._write_kept()
            super().emit(record)
            return
        self._kept.append(self.format(record) + self.terminator)
        if len(self._kept) == 1:
            timer = threading.Timer(LATE_S, self.flush)
            timer.daemon = True  # at the end of the process logging itself flushes
            timer.start()

    def flush(self) -> None:
        """Write what was kept. Called from any thread."""
        self.acquire()
        try:
            self._write_kept()
            if not self.stream.closed:
                super().flush()
        finally:
            self.release()

    def _write_kept(self) -> None:
        kept, self._kept = self._kept, []
        if kept and not self.stream.closed:  # as it is when the process, or a test, is over
            self.stream.write("".join(kept))
