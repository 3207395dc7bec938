"""SIGTERM and SIGINT outside the server's event loop: while a model is being loaded, and while the process ends.

In between Server.handle_exit has them. Any number of SIGTERMs stops the process once: supervisors that signal a whole
process group reach it twice, because `make` forwards its own.
"""

import signal
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def exit_while_loading() -> None:
    """From now on the first signal exits with code 0: no request was accepted yet. Call it in the main thread."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, _exit)


def ignore_while_ending() -> None:
    """From now on ignore further signals: everything is answered, and the exit code is decided.

    Python restores the defaults of its own handlers before it ends, but keeps ignored signals.
    """
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    ignore_while_ending()  # a second one would interrupt what the first one ends, with a traceback
    raise SystemExit(0)
