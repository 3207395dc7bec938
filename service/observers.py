"""Keeps observers from failing what they observe: metrics, traces, log lines and callbacks that report an outcome.

Every call of an observer is made inside `with isolated:` or through `never_raises(observer)`.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, ParamSpec

P = ParamSpec("P")
log = logging.getLogger("alignseg.observers")
_LOG_EVERY_S: Final = 1.0


class Isolated:
    """A context manager that ends without an exception: it counts the error and logs at most one a second.

    failures: errors so far. Stateless otherwise, so that one object serves all threads and may be nested.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._logged_at = float("-inf")

    def __enter__(self) -> None:
        """Do nothing: it is entered several times per request."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Suppress the error, unless it ends the process or the task."""
        if not isinstance(error, Exception):
            return False
        self.failures += 1
        with contextlib.suppress(Exception):
            self._log(error)
        return True

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.error("An observer failed; the request or task that it observed continues", exc_info=error)


isolated: Final = Isolated()


def never_raises(observer: Callable[P, object]) -> Callable[P, None]:
    """Return a function that calls `observer` and never raises."""

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        with isolated:
            observer(*args, **kwargs)

    return call


def failures() -> int:
    """Return how many calls of observers have failed."""
    return isolated.failures
