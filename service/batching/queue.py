"""The images that wait for an engine, grouped by batch key, each group in order of arrival.

Not thread-safe: the batcher holds a lock.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from service.types import UInt8Array


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """The result for one image of a batch.

    ids, confidence: (H, W) uint8, of the bucket's size, as in types.Inference; confidence is None when not requested.
    queued_s, infer_s: seconds in the queue and in the engine. batch_size: images in the batch.
    """

    ids: UInt8Array
    confidence: UInt8Array | None
    queued_s: float
    infer_s: float
    batch_size: int


@dataclass(eq=False, slots=True)
class QueuedImage:
    """An image in the queue.

    pixels: (H, W, 3) uint8 RGB. worker: the only engine that may compute it; None: any.
    arrived, deadline: on the batcher's clock. result: accessed on the event loop only.
    """

    pixels: UInt8Array
    with_confidence: bool
    worker: int | None
    arrived: float
    deadline: float
    result: asyncio.Future[InferenceResult]

    @property
    def key(self) -> "BatchKey":
        """What all images of one batch have in common: shape, confidence or not, worker."""
        return self.pixels.shape, self.with_confidence, self.worker


BatchKey = tuple[tuple[int, ...], bool, int | None]


class BatchQueue:
    """The queue, and the choice of the next batch."""

    def __init__(self) -> None:
        self._groups: dict[BatchKey, deque[QueuedImage]] = {}  # none is empty

    def add(self, image: QueuedImage) -> None:
        """Append an image."""
        self._groups.setdefault(image.key, deque()).append(image)

    def requeue(self, batch: list[QueuedImage]) -> None:
        """Put a batch that was not computed back at the front of its group."""
        self._groups.setdefault(batch[0].key, deque()).extendleft(reversed(batch))

    def cancel(self, image: QueuedImage) -> bool:
        """Remove an image; return False if it is not in the queue."""
        group = self._groups.get(image.key, deque())
        if image not in group:
            return False
        self._remove([image])
        return True

    def take_expired(self, now: float) -> list[QueuedImage]:
        """Remove and return all images whose deadline has passed."""
        return self._remove([image for image in self._all() if image.deadline <= now])

    def take_all(self, worker: int | None = None) -> list[QueuedImage]:
        """Remove and return all images, or all that only `worker` may compute."""
        return self._remove([image for image in self._all() if worker is None or image.worker == worker])

    def has_work_for(self, worker: int) -> bool:
        """Return whether the queue has an image that `worker` may compute."""
        return bool(self._groups_for(worker))

    def next_batch(
        self, worker: int, max_batch: int, now: float, delay_s: float
    ) -> tuple[list[QueuedImage], float | None]:
        """Remove and return the next batch of up to `max_batch` images, or [] and the seconds to wait for one.

        The wait is None when the queue is empty. The group with the oldest image comes first, so no group starves;
        while that one may still wait for more images (`delay_s` from its arrival), a group that fills a batch goes
        first.
        """
        groups = sorted(self._groups_for(worker), key=lambda group: group[0].arrived)
        if not groups:
            return [], None
        left_s = groups[0][0].arrived + delay_s - now
        chosen = next((group for group in groups if left_s <= 0 or len(group) >= max_batch), None)
        if chosen is None:
            return [], left_s
        batch = [chosen.popleft() for _ in range(min(len(chosen), max_batch))]
        self._drop_empty_groups()
        return batch, None

    def _all(self) -> list[QueuedImage]:
        return [image for group in self._groups.values() for image in group]

    def _groups_for(self, worker: int) -> list[deque[QueuedImage]]:
        return [group for group in self._groups.values() if group[0].worker in {None, worker}]

    def _remove(self, images: list[QueuedImage]) -> list[QueuedImage]:
        for image in images:
            self._groups[image.key].remove(image)
        self._drop_empty_groups()
        return images

    def _drop_empty_groups(self) -> None:
        self._groups = {key: group for key, group in self._groups.items() if group}
