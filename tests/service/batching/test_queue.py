"""Which batch is cut next, on a clock that the test moves."""

import asyncio
from typing import cast

import numpy as np

from service.batching.queue import BatchQueue, Inferred, QueuedImage

WIDE, TALL = (16, 24, 3), (24, 16, 3)


def item(arrived: float, shape: tuple[int, int, int] = WIDE) -> QueuedImage:
    nobody = cast("asyncio.Future[Inferred]", None)
    return QueuedImage(np.empty(shape, np.uint8), False, None, arrived, float("inf"), nobody)


def waiting(*items: QueuedImage) -> BatchQueue:
    queue = BatchQueue()
    for one in items:
        queue.add(one)
    return queue


def test_the_delay_counts_from_the_oldest() -> None:
    items = [item(arrived) for arrived in (0.0, 4.0, 8.0)]
    queue = waiting(*items)
    assert queue.next_batch(0, 8, 9.0, 10.0) == ([], 1.0)
    assert queue.next_batch(0, 8, 10.0, 10.0) == (items, None)


def test_company_that_goes_on_coming_puts_nobody_off() -> None:
    queue, now = waiting(item(0.0)), 0.0
    while not (batch := queue.next_batch(0, 100, now, 10.0)[0]):
        now += 1.0
        queue.add(item(now))
    assert (now, len(batch)) == (10.0, 11)


def test_however_full_a_bucket_is_the_oldest_of_another_goes_first() -> None:
    queue = waiting(item(0.0), item(1.0, TALL))
    shapes = []
    for now in range(2, 6):
        for _ in range(8):  # twice what is cut: this bucket never empties
            queue.add(item(float(now)))
        batch, _ = queue.next_batch(0, 4, float(now), 0.0)
        shapes.append(batch[0].pixels.shape)
    assert shapes == [WIDE, TALL, WIDE, WIDE]
