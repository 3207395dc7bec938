"""What waits for an engine: pictures by bucket, each bucket in order of arrival. Not locked: the batcher does that."""

import asyncio
from collections import deque
from dataclasses import dataclass

from service.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Inferred:
    """One picture's share of a batch.

    ids, confidence: (H, W) uint8 in the bucket, as in contracts.Inference; confidence is None when not asked for.
    queued_s, infer_s: the seconds it waited and was computed. batch_size: how many shared the batch.
    """

    ids: UInt8Array
    confidence: UInt8Array | None
    queued_s: float
    infer_s: float
    batch_size: int


@dataclass(eq=False, slots=True)
class QueuedImage:
    """A picture that waits. worker: the only one that may compute it. `answer` is touched on the event loop alone."""

    pixels: UInt8Array
    with_confidence: bool
    worker: int | None
    arrived: float
    deadline: float
    answer: asyncio.Future[Inferred]

    @property
    def bucket(self) -> "Bucket":
        """What the pictures of one batch have in common."""
        return self.pixels.shape, self.with_confidence, self.worker


Bucket = tuple[tuple[int, ...], bool, int | None]


class BatchQueue:
    """The queue, and which batch is cut from it next."""

    def __init__(self) -> None:
        self._queues: dict[Bucket, deque[QueuedImage]] = {}  # none empty

    def add(self, item: QueuedImage) -> None:
        """The latest."""
        self._queues.setdefault(item.bucket, deque()).append(item)

    def requeue(self, batch: list[QueuedImage]) -> None:
        """A batch that was cut and could not be computed; it is the first again."""
        self._queues.setdefault(batch[0].bucket, deque()).extendleft(reversed(batch))

    def cancel(self, item: QueuedImage) -> bool:
        """Take an item out; False when it does not wait here."""
        queue = self._queues.get(item.bucket, deque())
        if item not in queue:
            return False
        self._remove([item])
        return True

    def take_expired(self, now: float) -> list[QueuedImage]:
        """All whose deadline has passed."""
        return self._remove([item for item in self._all() if item.deadline <= now])

    def take_all(self, worker: int | None = None) -> list[QueuedImage]:
        """All that wait, or all that wait for that worker alone."""
        return self._remove([item for item in self._all() if worker is None or item.worker == worker])

    def has_work_for(self, worker: int) -> bool:
        """Whether anything waits that this worker may compute."""
        return bool(self._open_to(worker))

    def next_batch(self, worker: int, most: int, now: float, delay_s: float) -> tuple[list[QueuedImage], float | None]:
        """The next batch of at most `most`, or how long to wait for one; None: until something arrives.

        The bucket whose head is oldest goes first, so none starves; while that one may still wait for
        company (until `delay_s` after its arrival), a bucket that fills a batch goes ahead.
        """
        queues = sorted(self._open_to(worker), key=lambda queue: queue[0].arrived)
        if not queues:
            return [], None
        left_s = queues[0][0].arrived + delay_s - now
        chosen = next((queue for queue in queues if left_s <= 0 or len(queue) >= most), None)
        if chosen is None:
            return [], left_s
        batch = [chosen.popleft() for _ in range(min(len(chosen), most))]
        self._forget_empty()
        return batch, None

    def _all(self) -> list[QueuedImage]:
        return [item for queue in self._queues.values() for item in queue]

    def _open_to(self, worker: int) -> list[deque[QueuedImage]]:
        return [queue for queue in self._queues.values() if queue[0].worker in {None, worker}]

    def _remove(self, items: list[QueuedImage]) -> list[QueuedImage]:
        for item in items:
            self._queues[item.bucket].remove(item)
        self._forget_empty()
        return items

    def _forget_empty(self) -> None:
        self._queues = {bucket: queue for bucket, queue in self._queues.items() if queue}
