"""Threads for decoding and encoding, off the event loop and bounded."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Pool:
    """A fixed number of threads. What waits for them is bounded by admission."""

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Call work(*args) in a thread.

        A cancelled call ends when its work has ended: work in a thread can't be stopped, and until then it holds
        a core and memory that the caller must not give away a second time.
        """
        future = self._executor.submit(work, *args)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([waiter])
                waiter.exception()  # looked at: nobody else will
            raise

    def close(self) -> None:
        """Let the threads end once their work is done."""
        self._executor.shutdown(wait=False)
