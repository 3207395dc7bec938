"""A thread that repeats a step while a test runs."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def meanwhile(step: Callable[[], object], every_s: float) -> Generator[None, None, None]:
    """While the block runs, `step` is called repeatedly in a thread, with a pause of `every_s` before each call."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            step()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
