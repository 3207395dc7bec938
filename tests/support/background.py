"""Something that goes on beside a test."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def meanwhile(step: Callable[[], object], every_s: float) -> Generator[None, None, None]:
    """While inside, `step` is called in a thread again and again, with this pause before each call."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(every_s):
            step()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
