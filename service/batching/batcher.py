"""Forms batches from submitted images and runs them on the engines. Independent of HTTP, image formats and devices.

Each engine, one per GPU, has a thread; all threads take from one queue. A thread whose engine is free takes a batch
from what is queued at that moment, so batches grow with the load and no image waits for a timer. Admission limits the
length of the queue.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.batching.fault_isolation import FaultIsolatingEngine, OnCall, Outcome
from service.batching.queue import BatchQueue, InferenceResult, QueuedImage
from service.errors import DeadlineExceeded, DeviceLost, EngineError, NotReady
from service.types import Engine, UInt8Array

log = logging.getLogger("alignseg.batcher")


@dataclass(eq=False, slots=True)
class _Worker:
    """An engine and the thread that owns it. busy_since: start of the engine call in progress, on the clock."""

    number: int
    engine: Engine
    isolated: FaultIsolatingEngine
    busy_since: float | None = None
    ended: bool = False


class Batcher:
    """The queue in front of the engines of one model, each engine on its own device."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        max_queue_delay_s: float = 0.0,
        on_call: OnCall = lambda size, error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._delay_s = max_queue_delay_s
        self._clock = clock
        self._queue = BatchQueue()
        self._draining = False
        self._changed = threading.Condition()
        self._workers = [_Worker(n, engine, FaultIsolatingEngine(engine, on_call)) for n, engine in enumerate(engines)]
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"engine {worker.engine.name}", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    @property
    def runtime(self) -> str:
        """The engines' names, without duplicates."""
        return ", ".join(dict.fromkeys(worker.engine.name for worker in self._workers))

    @property
    def has_confidence(self) -> bool:
        """Whether all engines have a confidence output."""
        return all(worker.engine.has_confidence for worker in self._workers)

    @property
    def total_batch_size(self) -> int:
        """The sum of all engines' largest batches."""
        return sum(worker.engine.max_batch for worker in self._workers)

    @property
    def healthy(self) -> list[int]:
        """Indices of the engines that are not lost."""
        return [worker.number for worker in self._workers if worker.isolated.lost is None]

    @property
    def lost(self) -> DeviceLost | None:
        """The error, once all engines are lost and only a process restart helps; else None."""
        return None if self.healthy else self._workers[-1].isolated.lost

    @property
    def last_error(self) -> EngineError | None:
        """The latest engine call's error; None once the latest call of every healthy engine succeeded."""
        errors = (self._workers[number].isolated.last_error for number in self.healthy)
        return next((error for error in errors if error is not None), self.lost)

    @property
    def busy_since(self) -> float | None:
        """Start of the longest engine call in progress, on the clock; None if all engines are idle."""
        return min((since for worker in self._workers if (since := worker.busy_since) is not None), default=None)

    async def submit(
        self,
        pixels: UInt8Array,
        deadline: float = float("inf"),
        with_confidence: bool = False,
        worker: int | None = None,
    ) -> InferenceResult:
        """Queue one image and return its class map.

        pixels: (H, W, 3) uint8 RGB, C-contiguous. deadline: on the clock; after it the image is not computed.
        with_confidence: only if all engines have it. worker: index of the engine to use; None: any.
        Raises EngineError, DeadlineExceeded or NotReady. When cancelled, the image leaves the queue at once; if an
        engine is computing it already, this ends when the engine has finished.
        """
        result = asyncio.get_running_loop().create_future()
        image = QueuedImage(pixels, with_confidence, worker, self._clock(), deadline, result)
        self._enqueue(image)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not self._cancel(image):
                await asyncio.wait([result])
                result.exception()  # marks it as retrieved
            raise

    async def drain(self, timeout_s: float) -> bool:
        """Accept no more images, complete those in the queue, end the threads. Return False after `timeout_s`."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _enqueue(self, image: QueuedImage) -> None:
        with self._changed:
            lost = self.lost if image.worker is None else self._workers[image.worker].isolated.lost
            if lost is not None:
                raise DeviceLost(str(lost))  # a new one: an exception that is raised again keeps every old traceback
            if self._draining:
                raise NotReady(
                    "Not accepting requests: the server is shutting down. Send the request to another replica."
                )
            self._queue.add(image)
            if image.worker is None:
                self._changed.notify()
            else:
                self._changed.notify_all()  # notify() might wake another worker

    def _cancel(self, image: QueuedImage) -> bool:
        """Remove an image from the queue; return False if an engine is computing it."""
        with self._changed:
            if not self._queue.cancel(image):
                return False
        image.result.cancel()
        return True

    # The methods below run in the engines' threads.

    def _run(self, worker: _Worker) -> None:
        try:
            while worker.isolated.lost is None and (batch := self._next_batch(worker)):
                self._compute_safely(worker, batch)
        except Exception as error:
            log.exception("Engine thread failed")
            worker.isolated.lost = DeviceLost(f"the engine thread failed: {error!r}")
        finally:
            self._end(worker)
            worker.engine.close()

    def _compute_safely(self, worker: _Worker, batch: list[QueuedImage]) -> None:
        """Compute a batch; whatever fails, every image of it gets a result or an error."""
        try:
            self._compute(worker, batch)
        except Exception as error:
            log.exception("Engine thread failed")
            worker.isolated.lost = lost = DeviceLost(f"the engine thread failed: {error!r}")
            _resolve(batch, [lost] * len(batch))

    def _next_batch(self, worker: _Worker) -> list[QueuedImage]:
        """Wait for a batch; return [] once the queue is drained."""
        with self._changed:
            while True:
                self._drop_expired()
                if self._draining and not self._queue.has_work_for(worker.number):
                    return []
                delay_s = 0.0 if self._draining else self._delay_s
                batch, wait_s = self._queue.next_batch(worker.number, worker.engine.max_batch, self._clock(), delay_s)
                if batch:
                    return batch
                self._changed.wait(wait_s)

    def _drop_expired(self) -> None:
        expired = self._queue.take_expired(self._clock())
        error = DeadlineExceeded("The deadline passed while the image was queued; it was not computed. Retry later.")
        _resolve(expired, [error] * len(expired))

    def _compute(self, worker: _Worker, batch: list[QueuedImage]) -> None:
        began = worker.busy_since = self._clock()
        outcomes = worker.isolated.infer([image.pixels for image in batch], batch[0].with_confidence)
        infer_s, worker.busy_since = self._clock() - began, None
        if worker.isolated.lost is not None and self._requeue(batch):
            return

        def result(image: QueuedImage, outcome: Outcome) -> InferenceResult | EngineError:
            if isinstance(outcome, EngineError):
                return outcome
            return InferenceResult(outcome.ids, outcome.confidence, began - image.arrived, infer_s, len(batch))

        _resolve(batch, [result(image, outcome) for image, outcome in zip(batch, outcomes, strict=True)])

    def _requeue(self, batch: list[QueuedImage]) -> bool:
        """Let other engines compute the batch of a lost one; return False if no other engine may."""
        with self._changed:
            if batch[0].worker is not None or all(other.ended or other.isolated.lost for other in self._workers):
                return False
            self._queue.requeue(batch)
            self._changed.notify_all()
            return True

    def _end(self, worker: _Worker) -> None:
        """Fail the images that wait for this engine only, or, after the last engine, all that are queued."""
        lost = worker.isolated.lost
        with self._changed:
            worker.ended = True
            is_last = all(other.ended for other in self._workers)
            self._draining = self._draining or is_last
            remaining = self._queue.take_all(None if is_last else worker.number)
        if lost is not None and not is_last:
            log.error("Engine %s is lost: %d of %d remain", worker.engine.name, len(self.healthy), len(self._workers))
        _resolve(remaining, [lost or EngineError("the engine was closed")] * len(remaining))


def _resolve(images: Sequence[QueuedImage], outcomes: Sequence[InferenceResult | Exception]) -> None:
    """Pass the outcomes of a batch to the event loop, in one call."""
    if not images:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits for the results
        images[0].result.get_loop().call_soon_threadsafe(_set_results, list(zip(images, outcomes, strict=True)))


def _set_results(outcomes: Sequence[tuple[QueuedImage, InferenceResult | Exception]]) -> None:
    for image, outcome in outcomes:
        if image.result.done():
            continue
        if isinstance(outcome, Exception):
            image.result.set_exception(outcome)
        else:
            image.result.set_result(outcome)
