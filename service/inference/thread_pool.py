"""A fixed number of threads for decoding and encoding, so that the event loop stays free."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class ThreadPool:
    """A fixed number of threads. Admission limits the work that waits for one."""

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Call work(*args) in a thread and return its result.

        A cancelled call ends when its work has ended: a running thread cannot be stopped, and until it ends it uses a
        core and memory that must not be given to another request.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()  # asyncio.wrap_future takes four times as long
        future = self._executor.submit(_run, loop, result, partial(work, *args))
        try:
            return await result
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([asyncio.wrap_future(future)])
            raise

    def close(self) -> None:
        """End the threads once their work is done. Does not wait."""
        self._executor.shutdown(wait=False)


def _run(loop: asyncio.AbstractEventLoop, result: asyncio.Future[T], work: Callable[[], T]) -> None:
    try:
        resolve = partial(result.set_result, work())
    except BaseException as error:  # every exception belongs to the caller, as in concurrent.futures
        resolve = partial(result.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits for the result
        loop.call_soon_threadsafe(lambda: None if result.done() else resolve())
