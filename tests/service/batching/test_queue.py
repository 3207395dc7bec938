"""The choice of the next batch, on a clock that the test moves."""

import asyncio
from typing import cast

import numpy as np

from service.batching.queue import BatchQueue, InferenceResult, QueuedImage

WIDE, TALL = (16, 24, 3), (24, 16, 3)


def image(arrived: float, shape: tuple[int, int, int] = WIDE) -> QueuedImage:
    no_future = cast("asyncio.Future[InferenceResult]", None)
    return QueuedImage(np.empty(shape, np.uint8), False, None, arrived, float("inf"), no_future)


def queue_of(*images: QueuedImage) -> BatchQueue:
    queue = BatchQueue()
    for queued in images:
        queue.add(queued)
    return queue


def test_the_delay_counts_from_the_oldest_image() -> None:
    images = [image(arrived) for arrived in (0.0, 4.0, 8.0)]
    queue = queue_of(*images)
    assert queue.next_batch(0, 8, 9.0, 10.0) == ([], 1.0)
    assert queue.next_batch(0, 8, 10.0, 10.0) == (images, None)


def test_images_that_keep_arriving_do_not_extend_the_delay() -> None:
    queue, now = queue_of(image(0.0)), 0.0
    while not (batch := queue.next_batch(0, 100, now, 10.0)[0]):
        now += 1.0
        queue.add(image(now))
    assert (now, len(batch)) == (10.0, 11)


def test_the_group_with_the_oldest_image_comes_before_a_fuller_one() -> None:
    queue = queue_of(image(0.0), image(1.0, TALL))
    shapes = []
    for now in range(2, 6):
        for _ in range(8):  # twice a batch: this group never empties
            queue.add(image(float(now)))
        batch, _ = queue.next_batch(0, 4, float(now), 0.0)
        shapes.append(batch[0].pixels.shape)
    assert shapes == [WIDE, TALL, WIDE, WIDE]
