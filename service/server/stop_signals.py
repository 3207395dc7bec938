"""Signals outside the server's event loop: while a model is being loaded, and while the process ends.

In between Server.handle_exit has them. Any number of SIGTERMs stops the process once: supervisors that signal a whole
process group reach it twice, because `make` forwards its own.
"""

import signal
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED: Final = 130  # the exit code after a second SIGINT; shells use it for a process that SIGINT ended


def exit_while_loading() -> None:
    """From now on the first signal exits with code 0: no request was accepted yet. Call it in the main thread.

    SIGHUP, which asks for a check of the model folder, is ignored: the model is about to be read.
    """
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, _exit)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignore_while_ending() -> None:
    """From now on ignore further signals: everything is answered, and the exit code is decided.

    Python restores the defaults of its own handlers before it ends, but keeps ignored signals.
    """
    for ignored in (*STOP_SIGNALS, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    ignore_while_ending()  # a second one would interrupt what the first one ends, with a traceback
    raise SystemExit(0)
