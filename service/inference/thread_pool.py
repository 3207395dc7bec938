"""Threads for decoding and encoding, off the event loop and bounded."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class ThreadPool:
    """A fixed number of threads. What waits for them is bounded by admission."""

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Call work(*args) in a thread.

        A cancelled call ends when its work has ended: work in a thread can't be stopped, and until then it holds
        a core and memory that the caller must not give away a second time.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()  # asyncio.wrap_future takes four times as long
        future = self._executor.submit(_work_and_tell, loop, waiter, partial(work, *args))
        try:
            return await waiter
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([asyncio.wrap_future(future)])
            raise

    def close(self) -> None:
        """Let the threads end once their work is done."""
        self._executor.shutdown(wait=False)


def _work_and_tell(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[T], work: Callable[[], T]) -> None:
    try:
        tell = partial(waiter.set_result, work())
    except BaseException as error:  # as an executor does: it is the waiter's, whatever it is
        tell = partial(waiter.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(lambda: None if waiter.done() else tell())
