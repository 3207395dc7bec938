import asyncio
import threading

import pytest

from service.inference.thread_pool import ThreadPool


async def test_run_returns_the_result_or_raises() -> None:
    pool = ThreadPool("test", 1)
    assert await pool.run(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    pool.close()


async def test_cancelled_work_ends_with_its_thread_and_queued_work_at_once() -> None:
    pool, started, go = ThreadPool("test", 1), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert go.wait(120)

    running, queued = asyncio.create_task(pool.run(work)), asyncio.create_task(pool.run(work))
    await asyncio.to_thread(started.wait, 10)
    running.cancel()
    queued.cancel()
    await asyncio.wait([queued], timeout=120)
    assert queued.cancelled()
    assert not running.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    pool.close()
